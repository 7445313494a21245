// Command corpus chooses a small set of a fuzzer's inputs that covers as much as all of them do, and
// writes it to the package's testdata/fuzz, where every run of the tests tries it.
//
//	go run ./testdata/corpus -pkg ./formats/vmdk -target FuzzOpen -from "$(go env GOCACHE)/fuzz/imgferry/formats/vmdk/FuzzOpen"
//
// What it wrote before, recognised by names of 16 hexadecimal digits, is weighed again with the rest.
// Files with other names are regression cases: they stay, and what they and the seeds in the code
// cover needs no more inputs.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Limits of what is kept, so that the repository stays small and the tests quick.
const (
	maxInputs     = 64
	maxInputBytes = 16 << 10 // as written, which is Go source
	maxTotalBytes = 256 << 10
)

// written is how Go's fuzzer names inputs, and this program with it.
var written = regexp.MustCompile(`^[0-9a-f]{16}$`)

func main() {
	var c config
	flag.StringVar(&c.pkg, "pkg", "", "`package` with the fuzz target, as a path")
	flag.StringVar(&c.target, "target", "FuzzOpen", "the fuzz target")
	flag.StringVar(&c.from, "from", "", "`directory` with inputs, as Go's fuzzer writes them")
	flag.StringVar(&c.cover, "coverpkg", "", "packages whose coverage counts (default: the package)")
	flag.Parse()
	if err := run(c); err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

type config struct{ pkg, target, from, cover string }

// input is a file of the corpus.
type input struct {
	name   string
	bytes  []byte
	blocks blocks
}

// blocks are the pieces of code that a run went through, as a coverage profile names them.
type blocks map[string]bool

// missing is how many of b's blocks are not in covered.
func (b blocks) missing(covered blocks) (n int) {
	for k := range b {
		if !covered[k] {
			n++
		}
	}
	return n
}

func run(c config) error {
	if c.pkg == "" || c.from == "" {
		return errors.New("-pkg and -from are needed")
	}
	corpus := filepath.Join(c.pkg, "testdata", "fuzz", c.target)
	kept, old, err := load(corpus)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, candidates, err := load(c.from)
	if err != nil {
		return err
	}
	maps.Copy(candidates, old)
	b, err := newBench(c)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	covered, err := b.try("", kept)
	if err != nil {
		return err
	}
	seeds := len(covered)
	all := maps.Clone(covered)
	var list []input
	for _, name := range slices.Sorted(maps.Keys(candidates)) {
		in := input{name: name, bytes: candidates[name]}
		if in.blocks, err = b.try(name, map[string][]byte{name: in.bytes}); err != nil {
			return err
		}
		maps.Copy(all, in.blocks)
		if len(in.bytes) <= maxInputBytes {
			list = append(list, in)
		}
	}
	chosen := choose(list, covered)
	if err := replace(corpus, old, chosen); err != nil {
		return err
	}
	fmt.Printf("%s %s: %d of %d inputs, %d blocks with them, %d by seeds alone, %d by all\n",
		c.pkg, c.target, len(chosen), len(candidates), len(covered), seeds, len(all))
	return nil
}

// load reads the files of a directory: those that the fuzzer or this program wrote, and others.
func load(dir string) (others, inputs map[string][]byte, err error) {
	others, inputs = map[string][]byte{}, map[string][]byte{}
	list, err := os.ReadDir(dir)
	if err != nil {
		return others, inputs, err
	}
	for _, e := range list {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, nil, err
		}
		if written.MatchString(e.Name()) {
			inputs[e.Name()] = p
		} else {
			others[e.Name()] = p
		}
	}
	return others, inputs, nil
}

// choose takes, again and again, the input that adds most blocks to covered, and of several the
// shortest.
func choose(list []input, covered blocks) (chosen []input) {
	total := 0
	for len(chosen) < maxInputs {
		best, most := -1, 0
		for i, in := range list {
			n := in.blocks.missing(covered)
			if total+len(in.bytes) <= maxTotalBytes && (n > most || n > 0 && n == most && len(in.bytes) < len(list[best].bytes)) {
				best, most = i, n
			}
		}
		if best < 0 {
			break
		}
		chosen = append(chosen, list[best])
		total += len(list[best].bytes)
		maps.Copy(covered, list[best].blocks)
	}
	return chosen
}

// replace writes chosen to the directory, in place of old.
func replace(dir string, old map[string][]byte, chosen []input) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name := range old {
		if !slices.ContainsFunc(chosen, func(in input) bool { return in.name == name }) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for _, in := range chosen {
		if err := os.WriteFile(filepath.Join(dir, in.name), in.bytes, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bench is a folder in which the package's tests run over inputs of our choice.
type bench struct {
	config
	dir    string
	corpus string
}

// newBench builds the tests, and a testdata that differs from the package's in its fuzz folder only.
func newBench(c config) (b bench, err error) {
	b.config = c
	if b.dir, err = os.MkdirTemp("", "corpus"); err != nil {
		return b, err
	}
	b.corpus = filepath.Join(b.dir, "testdata", "fuzz", c.target)
	if err := errors.Join(os.MkdirAll(b.corpus, 0o755), b.linkTestdata(), b.build()); err != nil {
		return b, errors.Join(err, os.RemoveAll(b.dir))
	}
	return b, nil
}

func (b bench) linkTestdata() error {
	data, err := filepath.Abs(filepath.Join(b.pkg, "testdata"))
	if err != nil {
		return err
	}
	list, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range list {
		if e.Name() != "fuzz" {
			if err := os.Symlink(filepath.Join(data, e.Name()), filepath.Join(b.dir, "testdata", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b bench) build() error {
	args := []string{"test", "-c", "-cover", "-covermode=set", "-o", b.program()}
	if b.cover != "" {
		args = append(args, "-coverpkg="+b.cover)
	}
	out, err := exec.Command("go", append(args, b.pkg)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return nil
}

func (b bench) program() string { return filepath.Join(b.dir, "test.exe") }

// try runs the target over files and returns what that covers: over the file called name only, or
// with the seeds in the code if name is "".
func (b bench) try(name string, files map[string][]byte) (blocks, error) {
	for n, p := range files {
		path := filepath.Join(b.corpus, n)
		if err := os.WriteFile(path, p, 0o644); err != nil {
			return nil, err
		}
		defer os.Remove(path)
	}
	pattern := "^" + b.target + "$"
	if name != "" {
		pattern += "/^" + name + "$"
	}
	profile := filepath.Join(b.dir, "profile")
	cmd := exec.Command(b.program(), "-test.run="+pattern, "-test.coverprofile="+profile)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("input %q is a finding: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	p, err := os.ReadFile(profile)
	if err != nil {
		return nil, err
	}
	return parseProfile(string(p)), nil
}

// parseProfile returns the blocks that were run, of lines "file.go:1.2,3.4 statements count".
func parseProfile(p string) blocks {
	b := blocks{}
	for line := range strings.Lines(p) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[2] != "0" {
			b[fields[0]] = true
		}
	}
	return b
}
