package objectstore_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgferry/sandbox/objectstore"
)

// These tests drive the store with other people's programs, as their users do.

// tool is one of those programs: the arguments for each thing that it is to do.
type tool struct {
	program, pkg string // pkg is Debian's
	// environment points the program at the store. It may write files into home.
	environment func(c *cli, secret string) []string
	flags       func(c *cli, secret string) []string

	makeBucket  func(bucket string) []string
	put         func(file, bucket, key string) []string // in parts of 5 MiB from 5 MiB on
	copy        func(bucket, from, to string) []string
	list        func(bucket string) []string
	remove      func(bucket, key string) []string
	removeEmpty func(bucket string) []string
	// tail reads an object from the end of head on.
	tail func(c *cli, bucket, key string, head []byte) []byte
}

func url(bucket, key string) string { return "s3://" + bucket + "/" + key }

var tools = []tool{
	{
		program: "aws", pkg: "awscli",
		environment: func(c *cli, secret string) []string {
			config := filepath.Join(c.home, "config")
			c.write(config, "[default]\nregion = "+testRegion+"\ns3 =\n  multipart_threshold = 5MB\n  multipart_chunksize = 5MB\n  addressing_style = path\n")
			return []string{"AWS_ACCESS_KEY_ID=" + testAccess, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_CONFIG_FILE=" + config,
				"AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER="}
		},
		flags:      func(c *cli, _ string) []string { return []string{"--endpoint-url", c.world.server.URL} },
		makeBucket: func(bucket string) []string { return []string{"s3", "mb", "s3://" + bucket} },
		put:        func(file, bucket, key string) []string { return []string{"s3", "cp", file, url(bucket, key)} },
		copy: func(bucket, from, to string) []string {
			return []string{"s3", "cp", url(bucket, from), url(bucket, to)}
		},
		list:        func(bucket string) []string { return []string{"s3", "ls", "s3://" + bucket} },
		remove:      func(bucket, key string) []string { return []string{"s3", "rm", url(bucket, key)} },
		removeEmpty: func(bucket string) []string { return []string{"s3", "rb", "s3://" + bucket} },
		tail: func(c *cli, bucket, key string, head []byte) []byte {
			file := filepath.Join(c.home, "tail")
			c.ok("s3api", "get-object", "--bucket", bucket, "--key", key, "--range", fmt.Sprintf("bytes=%d-", len(head)), file)
			return c.read(file)
		},
	},
	{
		program: "rclone", pkg: "rclone",
		environment: func(c *cli, secret string) []string {
			return []string{"RCLONE_CONFIG=" + filepath.Join(c.home, "none"), "RCLONE_CONFIG_S3_TYPE=s3", "RCLONE_CONFIG_S3_PROVIDER=Other",
				"RCLONE_CONFIG_S3_ENDPOINT=" + c.world.server.URL, "RCLONE_CONFIG_S3_REGION=" + testRegion,
				"RCLONE_CONFIG_S3_ACCESS_KEY_ID=" + testAccess, "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY=" + secret,
				"RCLONE_S3_UPLOAD_CUTOFF=5M", "RCLONE_S3_CHUNK_SIZE=5M", "RCLONE_RETRIES=1", "RCLONE_LOW_LEVEL_RETRIES=1"}
		},
		makeBucket: func(bucket string) []string { return []string{"mkdir", "s3:" + bucket} },
		put:        func(file, bucket, key string) []string { return []string{"copyto", file, "s3:" + bucket + "/" + key} },
		copy: func(bucket, from, to string) []string {
			return []string{"copyto", "s3:" + bucket + "/" + from, "s3:" + bucket + "/" + to}
		},
		list:        func(bucket string) []string { return []string{"lsf", "s3:" + bucket} },
		remove:      func(bucket, key string) []string { return []string{"deletefile", "s3:" + bucket + "/" + key} },
		removeEmpty: func(bucket string) []string { return []string{"rmdir", "s3:" + bucket} },
		tail: func(c *cli, bucket, key string, head []byte) []byte {
			return c.ok("cat", "--offset", fmt.Sprint(len(head)), "s3:"+bucket+"/"+key)
		},
	},
	{
		program: "s3cmd", pkg: "s3cmd",
		flags: func(c *cli, secret string) []string {
			config := filepath.Join(c.home, "s3cfg")
			c.write(config, fmt.Sprintf("[default]\naccess_key = %s\nsecret_key = %s\nhost_base = %s\nhost_bucket = %[3]s\nbucket_location = %s\nuse_https = False\nmultipart_chunk_size_mb = 5\nmax_retries = 0\n",
				testAccess, secret, strings.TrimPrefix(c.world.server.URL, "http://"), testRegion))
			return []string{"--config", config, "--no-progress"}
		},
		makeBucket:  func(bucket string) []string { return []string{"mb", "s3://" + bucket} },
		put:         func(file, bucket, key string) []string { return []string{"put", file, url(bucket, key)} },
		copy:        func(bucket, from, to string) []string { return []string{"cp", url(bucket, from), url(bucket, to)} },
		list:        func(bucket string) []string { return []string{"ls", "s3://" + bucket} },
		remove:      func(bucket, key string) []string { return []string{"del", url(bucket, key)} },
		removeEmpty: func(bucket string) []string { return []string{"rb", "s3://" + bucket} },
		tail: func(c *cli, bucket, key string, head []byte) []byte {
			file := filepath.Join(c.home, "tail")
			c.write(file, string(head))
			c.ok("get", "--continue", url(bucket, key), file)
			got := c.read(file)
			if !bytes.HasPrefix(got, head) {
				c.Fatal("get --continue changed the bytes that were there")
			}
			return got[len(head):]
		},
	},
}

// cli runs a tool.
type cli struct {
	*testing.T
	tool  tool
	world *world
	home  string
}

// run returns what the program prints. Its environment is nothing but ours, so that no settings of the
// machine reach it.
func (c *cli) run(secret string, args ...string) (stdout []byte, err error) {
	c.Helper()
	var flags []string
	if c.tool.flags != nil {
		flags = c.tool.flags(c, secret)
	}
	cmd := exec.CommandContext(c.Context(), c.tool.program, append(flags, args...)...)
	cmd.Dir = c.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.home, "LC_ALL=C.UTF-8", "NO_PROXY=*"}
	if c.tool.environment != nil {
		cmd.Env = append(cmd.Env, c.tool.environment(c, secret)...)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if stdout, err = cmd.Output(); err != nil {
		err = fmt.Errorf("%s %s: %w: %s%s", c.tool.program, strings.Join(args, " "), err, stdout, &stderr)
	}
	return stdout, err
}

// ok is run with the right secret, and must succeed.
func (c *cli) ok(args ...string) []byte {
	c.Helper()
	out, err := c.run(testSecret, args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *cli) write(path, text string) {
	c.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
}

func (c *cli) read(path string) []byte {
	c.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		c.Fatal(err)
	}
	return p
}

// need skips the test where a program is missing, and fails it where none may be.
func need(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("IMGFERRY_REQUIRE_TOOLS") != "" {
		t.Fatalf("%s is missing: apt-get install %s", program, pkg)
	}
	t.Skipf("%s is missing: apt-get install %s", program, pkg)
}

func TestTools(t *testing.T) {
	for _, tool := range tools {
		t.Run(tool.program, func(t *testing.T) {
			t.Parallel() // the programs are mostly start-up
			need(t, tool.program, tool.pkg)
			w := newWorld(t)
			c := &cli{t, tool, w, t.TempDir()}
			c.objects("made-by-" + tool.program)
			c.manyKeys()
			if out, err := c.run("wrong"+testSecret, tool.list(bucket)...); err == nil || strings.Contains(string(out), "key-0000") {
				t.Errorf("a wrong secret key lists: %s", out)
			}
		})
	}
}

// objects makes a bucket and works on objects in it, of one request and of parts.
func (c *cli) objects(bucket string) {
	c.ok(c.tool.makeBucket(bucket)...)
	for key, size := range map[string]int{"small ä+.txt": 1000, "folder/parts": 11 << 20} {
		data := noise(uint64(size), size)
		file := filepath.Join(c.home, "data")
		c.write(file, string(data))
		c.ok(c.tool.put(file, bucket, key)...)
		c.ok(c.tool.copy(bucket, key, "copy of "+key)...)
		for _, stored := range []string{key, "copy of " + key} {
			if got := c.stored(bucket, stored); !bytes.Equal(got, data) {
				c.Errorf("%s: the store has %d other bytes", stored, len(got))
			}
		}
		o, err := c.world.store.OpenObject(bucket, key)
		if err != nil {
			c.Fatal(err)
		}
		if parts := strings.Contains(o.ETag(), "-"); parts != (size > 5<<20) {
			c.Errorf("%s: an object of %d bytes has the ETag %s", key, size, o.ETag())
		}
		o.Close()
	}
	const key = "folder/parts"
	data := c.stored(bucket, key)
	head := data[:len(data)-777]
	if got := c.tool.tail(c, bucket, key, head); !bytes.Equal(got, data[len(head):]) {
		c.Errorf("%s: read %d bytes of the last 777", key, len(got))
	}
	c.ok(c.tool.remove(bucket, key)...)
	if got := c.stored(bucket, key); got != nil {
		c.Errorf("%s: removed, but the store has %d bytes", key, len(got))
	}
	// Each run of a program costs up to a second: the rest goes without one.
	for _, key := range []string{"small ä+.txt", "copy of small ä+.txt", "copy of folder/parts"} {
		if err := c.world.store.RemoveObject(bucket, key); err != nil {
			c.Fatal(err)
		}
	}
	c.ok(c.tool.removeEmpty(bucket)...)
	if _, err := c.world.store.OpenObject(bucket, "x"); err != objectstore.ErrNoSuchBucket {
		c.Errorf("the removed bucket: %v", err)
	}
}

// stored returns an object's bytes as the store has them, or nil.
func (c *cli) stored(bucket, key string) []byte {
	c.Helper()
	o, err := c.world.store.OpenObject(bucket, key)
	if err == objectstore.ErrNoSuchKey {
		return nil
	}
	if err != nil {
		c.Fatal(err)
	}
	defer o.Close()
	p := make([]byte, o.Size())
	if _, err := o.ReadAt(p, 0); err != nil {
		c.Fatal(err)
	}
	return p
}

// manyKeys lists more keys than one page holds.
func (c *cli) manyKeys() {
	var want []string
	for i := range 1005 {
		key := fmt.Sprintf("key-%04d", i)
		if _, err := c.world.store.PutObject(c.Context(), bucket, key, strings.NewReader("x"), nil); err != nil {
			c.Fatal(err)
		}
		want = append(want, key)
	}
	var got []string
	for _, field := range strings.Fields(string(c.ok(c.tool.list(bucket)...))) {
		if i := strings.LastIndex(field, "key-"); i >= 0 {
			got = append(got, field[i:])
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		c.Errorf("%d keys are listed, not the %d that there are", len(got), len(want))
	}
}
