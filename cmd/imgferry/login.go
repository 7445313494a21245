package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgferry/ims"
	"imgferry/profile"
)

// envPassword is read by login alone.
const envPassword = "IMGFERRY_PASSWORD"

type loginCommand struct {
	*app
	cloud         cloud
	passwordStdin bool
}

func (a *app) loginCommand() *cobra.Command {
	c := &loginCommand{app: a, cloud: cloud{app: a}}
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in with user name and password, instead of an access key",
		Long: `Login asks the identity service (IAM) for a token and for temporary keys, and keeps
them, not the password, for the profile until they end: 24 hours at most. Commands
use them where no access key is set. Logout forgets them.

The password is asked for, or comes from $` + envPassword + ` or, with --password-stdin,
from standard input. The next login needs no other flags than this one had.`,
		Example: `  imgferry login --region cn-north-4 --domain my-account --user alice
  pass show cloud | imgferry login --password-stdin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context())
		},
	}
	c.cloud.flags(cmd, loginSettings...)
	c.cloud.flags(cmd, profile.Proxy, profile.CAFile)
	c.cloud.patience.flags(cmd)
	c.cloud.profileFlags(cmd)
	cmd.Flags().BoolVar(&c.passwordStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (c *loginCommand) run(ctx context.Context) error {
	to := &c.cloud
	to.loginAnew = true
	to.fill()
	if to.err != nil {
		return to.err
	}
	if to.file == nil {
		_, err := profile.Path()
		return err
	}
	if to.from[profile.AccessKey] != "" && to.from[profile.AccessKey] != fromLogin {
		c.warn("the access key from %s goes before the login", to.from[profile.AccessKey])
		if err := to.loadLogin(); err != nil {
			return err
		}
		to.derive()
	}
	project := need{to.project + to.region, regionWords}
	if err := missing(to.asks(profile.User, "the user"), to.asks(profile.Domain, "the user's account"), project, need{to.iamEndpoint, regionWords}); err != nil {
		return err
	}
	id, err := to.identity()
	if err != nil {
		return err
	}
	to.warnPlain("the password", to.iamEndpoint)
	password, err := c.password(ctx)
	if err != nil {
		return err
	}
	token, err := id.Token(ctx, ims.PasswordLogin{
		User: to.user, Domain: to.domain, Password: password, ProjectID: to.project, ProjectName: to.region,
	})
	if errors.Is(err, ims.ErrDenied) {
		return &advised{err, []string{
			"Check the user, the domain (the name of the account) and the password. A user who needs a",
			"second factor, or may not log in by program, needs an access key instead.",
		}}
	} else if err != nil {
		return err
	}
	return c.keep(ctx, id, token)
}

// keep gets temporary keys for the token, and stores both.
func (c *loginCommand) keep(ctx context.Context, id *ims.Identity, token ims.IssuedToken) error {
	to := &c.cloud
	if token.ProjectID != "" {
		to.project = token.ProjectID
	}
	l := profile.Login{Bound: make(map[string]string), Token: profile.Secret(token.Secret()), Expires: token.Expires}
	for _, name := range loginSettings {
		l.Bound[name] = *settingNamed(name).field(to)
	}
	keys, err := id.Keys(ctx, token, ims.MaxKeysLifetime)
	switch {
	case errors.Is(err, ims.ErrNotFound), errors.Is(err, ims.ErrDenied):
		// An identity service without this call, or a user who may not make it: the token alone is good
		// for the image service.
		c.warn("there are no temporary keys: %v", err)
	case err != nil:
		return err
	default:
		secret, security := keys.Secrets()
		l.AccessKey, l.SecretKey, l.SecurityToken, l.KeysExpire = keys.AccessKey, profile.Secret(secret), profile.Secret(security), keys.Expires
	}
	if err := to.file.SaveLogin(to.profile, l); err != nil {
		return err
	}
	c.say("logged in as %s of %s, for profile %s, until %s", to.user, to.domain, to.profile, l.Ends().Local().Format(timeLayout))
	return nil
}

// password is the user's, from wherever it may come.
func (c *loginCommand) password(ctx context.Context) (string, error) {
	if c.passwordStdin {
		return readSecret(c.stdin, "password")
	}
	if p := os.Getenv(envPassword); p != "" {
		return p, nil
	}
	if _, ok := c.terminal(); !ok {
		return "", usagef("there is no terminal to ask for the password: use --password-stdin or $%s", envPassword)
	}
	return c.secret(ctx, "password of "+c.cloud.user)
}

func (a *app) logoutCommand() *cobra.Command {
	c := &cloud{app: a}
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget the login of a profile",
		Long: `Logout removes what login stored for the profile from this machine. The identity
service does not know of it: what was issued ends by itself.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := c.openFile(true); err != nil {
				return err
			}
			c.chooseProfile()
			was, err := c.file.DeleteLogin(c.profile)
			if err != nil {
				return err
			}
			if !was {
				a.say("profile %s was not logged in", c.profile)
			}
			return nil
		},
	}
	c.profileFlags(cmd)
	return cmd
}

// terminal returns standard input if it is a terminal.
func (a *app) terminal() (*os.File, bool) {
	f, ok := a.stdin.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// secret asks for a secret at the terminal, without showing what is typed, or reads it from standard
// input if that is no terminal.
func (a *app) secret(ctx context.Context, what string) (string, error) {
	f, ok := a.terminal()
	if !ok {
		return readSecret(a.stdin, what)
	}
	fd := int(f.Fd()) // once: the goroutine below may outlive f
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(a.stderr, printable(what)+": ")
	type line struct {
		text []byte
		err  error
	}
	typed := make(chan line, 1)
	// Nothing ends a read from a terminal but the user. After an interrupt the process ends, and this
	// goroutine with it.
	go func() {
		text, err := term.ReadPassword(fd)
		typed <- line{text, err}
	}()
	select {
	case l := <-typed:
		fmt.Fprintln(a.stderr)
		if l.err != nil {
			return "", fmt.Errorf("read the %s: %w", what, l.err)
		}
		return checkSecret(string(l.text), what)
	case <-ctx.Done():
		err := term.Restore(fd, before)
		fmt.Fprintln(a.stderr)
		return "", errors.Join(context.Cause(ctx), err)
	}
}

// maxSecret bounds a secret that is read, in bytes: security tokens have a few thousand.
const maxSecret = 32 << 10

// readSecret reads a secret, which is one line.
func readSecret(r io.Reader, what string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	return checkSecret(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), what)
}

func checkSecret(s, what string) (string, error) {
	switch {
	case s == "":
		return "", usagef("the %s is empty", what)
	case len(s) > maxSecret:
		return "", usagef("the %s is longer than %d bytes", what, maxSecret)
	case strings.ContainsAny(s, "\r\n"):
		return "", usagef("the %s has more than one line", what)
	}
	return s, nil
}
