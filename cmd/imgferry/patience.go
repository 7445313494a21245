package main

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"imgferry/upload"
)

// patience is how often, and for how long, a command asks a store or service that does not answer. Zero
// fields are the defaults of the clients.
type patience struct {
	tries   count
	timeout timeout
}

// serviceTimeout is how long the clients of the services wait for an answer unless told otherwise.
const serviceTimeout = 30 * time.Second

func (p *patience) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	if f.Lookup("retries") != nil {
		return
	}
	f.Var(&p.tries, "retries", "how often one request is tried (default: 8 times at the store, 6 at a service)")
	f.Var(&p.timeout, "request-timeout", `how long one try may go without an answer, or without a byte of a part
getting through (default: 2m0s at the store, 1m0s for a part that stands
still, 30s at a service). What a store works at for longer, such as putting
an object together, has two and a half times as long`)
}

// policy is how requests to the store are repeated.
func (c *cloud) policy() upload.Policy {
	p := upload.Policy{
		Tries: int(c.patience.tries), Deadline: time.Duration(c.patience.timeout), Stall: time.Duration(c.patience.timeout),
		Base: c.delay(), Max: c.delay(),
	}
	if c.app != nil {
		p.OnRetry = c.app.onRetry
	}
	return p
}

// delay is the pause before the second try of a request; 0: the client's own.
func (c *cloud) delay() time.Duration {
	if c.app == nil {
		return 0
	}
	return c.app.pace.backoff
}

// settle is how long a request whose answer was lost may take to show, if longer than usual: longer
// than was waited for the answer. 0: as usual.
func (p *patience) settle() time.Duration {
	if t := time.Duration(p.timeout); t > serviceTimeout {
		return t * 3 / 2
	}
	return 0
}

// pace is the pauses of a run. Zero fields are the defaults of whoever waits; tests, whose clouds are
// near, shorten them.
type pace struct {
	backoff time.Duration // between two tries of a request
	poll    time.Duration // between two looks at a job or image
	outage  time.Duration // how long such looks may fail
	settle  time.Duration // until a request whose answer was lost shows
}

// count is the value of a flag that takes 1 or more.
type count int

func (n *count) String() string {
	if *n == 0 {
		return ""
	}
	return strconv.Itoa(int(*n))
}

func (*count) Type() string { return "int" }

func (n *count) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return errors.New("use 1 or more")
	}
	*n = count(v)
	return nil
}

// timeout is the value of a flag that takes a time above 0.
type timeout time.Duration

func (t *timeout) String() string {
	if *t == 0 {
		return ""
	}
	return time.Duration(*t).String()
}

func (*timeout) Type() string { return "duration" }

func (t *timeout) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("use a time such as 30s or 2m")
	}
	*t = timeout(d)
	return nil
}
