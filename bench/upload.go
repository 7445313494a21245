//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The account and the bucket of the store that is uploaded to.
const (
	benchAccess = "BENCHACCESSKEY"
	benchSecret = "bench-secret-key"
	benchBucket = "images"
	benchRegion = "sandbox-1" // the sandbox's own
)

// store is a sandbox in a process of its own.
type store struct {
	cmd      *exec.Cmd
	dir      string // its data, and the settings of its clients
	endpoint string // http://HOST:PORT
}

// start starts the store with its data below dir.
func (s *store) start(program, dir string) error {
	s.dir = filepath.Join(dir, "store")
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return err
	}
	s.cmd = exec.Command(program, "sandbox", "--json", "--data", filepath.Join(s.dir, "data"), "--listen-store", "127.0.0.1:0", "--listen-images", "127.0.0.1:0",
		"--ak", benchAccess, "--sk", benchSecret, "--bucket", benchBucket, "--log-level", "error")
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	s.cmd.Stderr = &said
	if err := s.cmd.Start(); err != nil {
		return err
	}
	var settings map[string]string
	err = json.NewDecoder(bufio.NewReader(out)).Decode(&settings)
	s.endpoint = settings["IMGFERRY_OBS_ENDPOINT"]
	if err == nil && s.endpoint == "" {
		err = errors.New("the sandbox does not say where it is")
	}
	if err != nil {
		err = errors.Join(err, s.stop())
		return fmt.Errorf("the sandbox does not start: %w: %s", err, said.String())
	}
	return os.WriteFile(s.s3cmdConfig(), nil, 0o666)
}

// stop ends the store and removes its data.
func (s *store) stop() error {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // it was killed
	return os.RemoveAll(s.dir)
}

func (s *store) s3cmdConfig() string { return filepath.Join(s.dir, "s3cfg") }

// The commands that send a file to an object, each at its best settings: parts of 16 MiB, eight at once,
// and no pass over the file before.

func (s *store) rclone(endpoint, file, key string) []string {
	return []string{"rclone", "copyto", file, ":s3:" + benchBucket + "/" + key, "--config", os.DevNull,
		"--s3-provider", "Other", "--s3-endpoint", endpoint, "--s3-access-key-id", benchAccess, "--s3-secret-access-key", benchSecret,
		"--s3-region", benchRegion, "--s3-force-path-style", "--s3-chunk-size", "16M", "--s3-upload-concurrency", "8",
		"--s3-disable-checksum", "--s3-no-check-bucket", "--s3-no-head", "--ignore-times"}
}

func (s *store) s3cmd(endpoint, file, key string) []string {
	host := strings.TrimPrefix(endpoint, "http://")
	return []string{"s3cmd", "put", file, "s3://" + benchBucket + "/" + key, "--config", s.s3cmdConfig(), "--no-ssl", "--host", host, "--host-bucket", host,
		"--access_key", benchAccess, "--secret_key", benchSecret, "--region", benchRegion, "--multipart-chunk-size-mb", "16", "--no-check-md5", "--no-progress", "--quiet"}
}

func (s *store) upload(program, endpoint, file, key string, more ...string) []string {
	return append([]string{program, "upload", file, "s3://" + benchBucket + "/" + key, "--overwrite",
		"--obs-endpoint", endpoint, "--ak", benchAccess, "--sk", benchSecret, "--region", benchRegion}, more...)
}

// sum is the SHA-256 of an object, as rclone reads it.
func (s *store) sum(key string) (string, error) {
	args := s.rclone(s.endpoint, "", key)
	args = append([]string{"cat", args[3]}, args[4:len(args)-1]...)
	cmd := exec.Command("rclone", args...)
	cmd.Env = append(os.Environ(), "AWS_CA_BUNDLE=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = bufio.NewReader(out).WriteTo(h)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return "", fmt.Errorf("rclone cat %s: %w", key, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// transfer is two ways to bring a disk into a store. Each is one command after the other.
type transfer struct {
	name string
	a, b [][]string
	same bool // the two objects must have the same bytes
}

// uploads compares uploads with other programs': of the same bytes, and of a disk that has to be converted
// first, where a program of its own must wait for the file. Each pair goes to the same server; that of the
// second kind over a link, too, that takes as long as the conversion. Only those whose names are wanted run.
func uploads(dir, data, disk, program string, pairs int, wanted *regexp.Regexp) error {
	unwanted := func(t transfer) bool { return !wanted.MatchString("uploads") && !wanted.MatchString(t.name) }
	var s store
	p := paths{program, data, disk, filepath.Join(dir, "upload.zvhd2"), filepath.Join(dir, "upload.qcow2")}
	if len(slices.DeleteFunc(s.transfers(p, ""), unwanted)) == 0 {
		return nil
	}
	for _, tool := range []string{"rclone", "s3cmd", "qemu-img"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Printf("\n%s is missing, so no uploads are compared: apt-get install rclone s3cmd qemu-utils\n", tool)
			return nil
		}
	}
	if err := s.start(program, dir); err != nil {
		return err
	}
	defer os.Remove(p.converted)
	defer os.Remove(p.packed)
	speed, err := s.speed(p)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	slow, err := newLink(strings.TrimPrefix(s.endpoint, "http://"), speed)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	fmt.Printf("\nThe slow link has %.0f MB/s.\n", speed/1e6)
	err = s.compare(slices.DeleteFunc(s.transfers(p, slow.endpoint()), unwanted), pairs)
	slow.close()
	return errors.Join(err, s.stop())
}

// paths are the files of uploads: bytes to send as they are, a disk to convert, and what becomes of it.
type paths struct{ program, data, disk, converted, packed string }

// convert is the command that makes what is uploaded from the disk.
func (p paths) convert() []string {
	return []string{p.program, "convert", p.disk, p.converted, "-O", "zvhd2", "--force", "--no-sync"}
}

// speed is that of a link that takes as long to send what the disk becomes as the conversion takes, in bytes a second.
func (s *store) speed(p paths) (float64, error) {
	var times []float64
	for range 3 {
		took, err := s.child(p.convert())
		if err != nil {
			return 0, err
		}
		times = append(times, took.Wall.Seconds())
	}
	st, err := os.Stat(p.converted)
	if err != nil {
		return 0, err
	}
	return float64(st.Size()) / median(times), nil
}

// transfers are all that can be compared, with slow the endpoint of the slow link.
func (s *store) transfers(p paths, slow string) []transfer {
	list := []transfer{
		{"rclone copyto", [][]string{s.rclone(s.endpoint, p.data, "a")}, [][]string{s.upload(p.program, s.endpoint, p.data, "b", "--as-is")}, true},
		{"s3cmd put", [][]string{s.s3cmd(s.endpoint, p.data, "a")}, [][]string{s.upload(p.program, s.endpoint, p.data, "b", "--as-is")}, true},
	}
	qemu := []string{"qemu-img", "convert", "-c", "-m", "8", "-W", "-f", "raw", "-O", "qcow2", p.disk, p.packed}
	for _, link := range []struct{ name, endpoint string }{{"", s.endpoint}, {", slow link", slow}} {
		ours := func(level string) [][]string {
			return [][]string{s.upload(p.program, link.endpoint, p.disk, "b", "--compress-level", level)}
		}
		theirs := [][]string{p.convert(), s.rclone(link.endpoint, p.converted, "a")}
		list = append(list,
			transfer{"convert, then rclone" + link.name, theirs, ours("default"), true},
			transfer{"convert, then rclone, level auto" + link.name, theirs, ours("auto"), false},
			transfer{"qemu-img -c, then rclone" + link.name, [][]string{qemu, s.rclone(link.endpoint, p.packed, "a")}, ours("default"), false})
	}
	return list
}

func (s *store) compare(list []transfer, pairs int) error {
	fmt.Printf("\n%-42s %7s %7s %7s %8s %8s %s\n", "A against B (imgferry upload)", "A s", "B s", "B/A", "A cpu s", "B cpu s", "discarded")
	for _, c := range list {
		if err := s.race(c, pairs); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, c := range list {
		fmt.Println(" ", c.name)
		for _, args := range c.a {
			fmt.Println("    A:", strings.Join(args, " "))
		}
		fmt.Println("    B:", strings.Join(c.b[0], " "))
	}
	return nil
}

// race runs a pair in turn and prints a row.
func (s *store) race(c transfer, pairs int) error {
	side := func(commands [][]string) func() (sample, error) {
		return func() (sample, error) {
			var total sample
			for _, args := range commands {
				took, err := s.child(args)
				if err != nil {
					return total, err
				}
				total.wall += took.Wall
				total.cpu += took.CPU
			}
			return total, nil
		}
	}
	as, bs, lost, err := inTurn(pairs, side(c.a), side(c.b))
	if err != nil {
		return err
	}
	if c.same {
		a, err := s.sum("a")
		if err != nil {
			return err
		}
		if b, err := s.sum("b"); err != nil || a != b {
			return fmt.Errorf("the two objects differ (%v)", err)
		}
	}
	ratios := make([]float64, len(as))
	for i := range as {
		ratios[i] = bs[i].wall.Seconds() / as[i].wall.Seconds()
	}
	if len(as) == 0 {
		fmt.Printf("%-42s every pair was discarded\n", c.name)
		return nil
	}
	fmt.Printf("%-42s %7.2f %7.2f %7.2f %8.2f %8.2f %d\n", c.name, median(walls(as)), median(walls(bs)), median(ratios), median(cpus(as)), median(cpus(bs)), lost)
	return nil
}

// child runs a command with a home of its own, so that nothing of the user's is read or touched.
func (s *store) child(args []string) (child, error) {
	// Certificates of AWS's clients from the environment make rclone refuse to start.
	return runChild([]string{"HOME=" + s.dir, "XDG_STATE_HOME=", "XDG_CONFIG_HOME=", "AWS_CA_BUNDLE="}, args...)
}
