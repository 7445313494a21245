package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgferry/pipeline"
	"imgferry/profile"
	"imgferry/source"
)

// appKey is the place of the app in the contexts of its commands.
type appKey struct{}

// appOf is the app whose command runs under ctx, or nil.
func appOf(ctx context.Context) *app {
	a, _ := ctx.Value(appKey{}).(*app)
	return a
}

// notice tells the user of what takes long while an image is opened.
func notice(ctx context.Context) func(string) {
	a := appOf(ctx)
	if a == nil {
		return nil
	}
	return func(text string) { a.say("%s", text) }
}

// remoteFlags are for commands that have no cloud of their own, and read images from other machines.
func (s *sourceFlags) remoteFlags(cmd *cobra.Command) {
	s.cloud.flags(cmd, profile.OBSEndpoint, profile.AddressingStyle)
	s.cloud.accessFlags(cmd)
}

// reach is the cloud's settings: those of the flags that the command has, then as everywhere.
func (s *sourceFlags) reach(ctx context.Context) *cloud {
	c := s.cloud
	if s.own != nil {
		c = *s.own
	}
	c.app = appOf(ctx)
	if c.from == nil {
		c.fill()
	}
	return &c
}

// remote opens an image on another machine.
func (s *sourceFlags) remote(ctx context.Context, name string) (pipeline.Source, error) {
	c := s.reach(ctx)
	object, err := remoteObject(c, name)
	if err != nil {
		return nil, err
	}
	r, err := source.OpenRemote(ctx, object, c.readPatience())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", object.Name(), err)
	}
	return r, nil
}

// remoteObject is what an address names. Nothing is sent yet.
func remoteObject(c *cloud, name string) (source.Object, error) {
	if bucket, key, ok := parseS3(name); ok {
		c.bucket = bucket
		store, err := c.store()
		if err != nil {
			return nil, err
		}
		return pipeline.NewObject(store, s3Scheme+bucket, key), nil
	}
	if strings.HasPrefix(strings.ToLower(name), s3Scheme) {
		return nil, usagef("%q is no object: write s3://BUCKET/KEY", name)
	}
	if _, err := c.roundTripper(); err != nil {
		return nil, err
	}
	h, err := source.NewHTTP(name, source.HTTPConfig{Transport: c.transport, UserAgent: userAgent()})
	return h, asUsage(err)
}

// readPatience is how reads of remote images are repeated.
func (c *cloud) readPatience() source.Patience {
	p := source.Patience{Tries: int(c.patience.tries), Stall: time.Duration(c.patience.timeout), Base: c.delay(), Max: c.delay()}
	if c.app != nil {
		p.OnRetry = c.app.onRetry
	}
	return p
}

// s3Scheme is what the address of an object begins with.
const s3Scheme = "s3://"

// parseS3 returns the parts of s3://BUCKET/KEY. The key is as it is written: nothing is unescaped.
func parseS3(name string) (bucket, key string, ok bool) {
	if len(name) < len(s3Scheme) || !strings.EqualFold(name[:len(s3Scheme)], s3Scheme) {
		return "", "", false
	}
	bucket, key, _ = strings.Cut(name[len(s3Scheme):], "/")
	return bucket, key, bucket != "" && key != ""
}

// publicName is an image's name without the secrets that an address may hold.
func publicName(name string) string {
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return name
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
