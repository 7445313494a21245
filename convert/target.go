package convert

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/qcow2"
	"imgferry/formats/vhd"
	"imgferry/formats/vmdk"
	"imgferry/formats/zvhd"
	"imgferry/formats/zvhd2"
)

// Target is a format that a disk can be written in.
type Target struct {
	// Name is qemu-img's where it knows the format.
	Name string
	// About says in a few words what the format is.
	About string
	// Extension is that of a file's name, with its dot.
	Extension string
	// Options are what can be chosen.
	Options []TargetOption
	// Compress is what to choose, NAME=VALUE, for the target to be compressed; "" where there is no choice.
	Compress string

	// spellings are qemu-img's other words for options.
	spellings map[string]string
	// streams says whether a pipe can take it.
	streams func(Settings) bool
	// packs says whether it is compressed.
	packs func(Settings) bool
	// writer makes the Writer; nil: the disk is written as it is.
	writer func(out io.Writer, size int64, s Settings) (Writer, error)
}

// TargetOption is one choice: NAME=VALUE.
type TargetOption struct {
	Name, Help string
	// Values are the words that it takes; nil: a number of bytes.
	Values  []string
	Default string

	// bytes refuses numbers of bytes that the format has no use for; nil where Values is not.
	bytes func(n int64) error
}

// Settings are the values of all of a target's options, by name.
type Settings map[string]string

// levels are the values of the option "level" of targets that compress.
var levels = []string{"fastest", "default", "better", "best"}

func levelOption(help string) TargetOption {
	return TargetOption{Name: "level", Help: help, Values: levels, Default: "default"}
}

func always(Settings) bool { return true }
func never(Settings) bool  { return false }

func streamOptimized(s Settings) bool { return s["subformat"] == "streamOptimized" }

// Targets returns what can be written.
func Targets() []Target {
	return []Target{
		{
			Name: "raw", About: "the disk byte for byte; zeros become holes", Extension: ".raw", streams: always, packs: never,
		},
		{
			Name: "zvhd2", About: "Huawei Cloud's compressed image", Extension: ".zvhd2", streams: always, packs: always,
			Options: []TargetOption{
				{Name: "codec", Help: "how blocks are compressed", Values: []string{"zstd", "zlib"}, Default: "zstd"},
				levelOption("how hard the encoder tries"),
			},
			writer: zvhd2Writer,
		},
		{
			Name: "zvhd", About: "Huawei Cloud's older compressed image", Extension: ".zvhd", streams: always, packs: always,
			Options: []TargetOption{levelOption("how hard the encoder tries")},
			writer:  zvhdWriter,
		},
		{
			Name: "qcow2", About: "QEMU's image, version 3", Extension: ".qcow2", streams: never,
			packs:    func(s Settings) bool { return s["compression_type"] != "none" },
			Compress: "compression_type=zlib",
			Options: []TargetOption{
				{Name: "compression_type", Help: "how clusters are compressed", Values: []string{"none", "zlib", "zstd"}, Default: "none"},
				{Name: "cluster_size", Help: "unit of storage, a power of two from 512 to 2M", Default: "64K", bytes: qcow2.CheckClusterSize},
				levelOption("how hard the encoder tries"),
			},
			writer: qcow2Writer,
		},
		{
			Name: "vpc", About: "VHD, of Virtual PC, Hyper-V and Azure; vhd for short", Extension: ".vhd",
			streams:   func(s Settings) bool { return s["subformat"] == "fixed" },
			packs:     never,
			spellings: map[string]string{"force_size": "rounding=exact", "force_size=on": "rounding=exact", "force_size=off": "rounding=geometry"},
			Options: []TargetOption{
				{Name: "subformat", Help: "whether zeros are stored", Values: []string{"dynamic", "fixed"}, Default: "dynamic"},
				{Name: "rounding", Help: "how the size is rounded up: not (QEMU's force_size), as Virtual PC needs it, or as Azure does",
					Values: []string{"exact", "geometry", "mib"}, Default: "exact"},
			},
			writer: vpcWriter,
		},
		{
			Name: "vmdk", About: "VMware's image", Extension: ".vmdk",
			streams:  streamOptimized,
			packs:    streamOptimized,
			Compress: "subformat=streamOptimized",
			Options: []TargetOption{
				{Name: "subformat", Help: "compressed for transport, or for use", Values: []string{"streamOptimized", "monolithicSparse"}, Default: "streamOptimized"},
				{Name: "adapter_type", Help: "virtual controller", Values: []string{"ide", "buslogic", "lsilogic", "legacyESX"}, Default: "ide"},
				levelOption("how hard the encoder of streamOptimized tries"),
			},
			writer: vmdkWriter,
		},
	}
}

// aliases are other names of targets.
var aliases = map[string]string{"vhd": "vpc"}

// TargetNames returns the names that TargetByName takes, without aliases.
func TargetNames() []string {
	var names []string
	for _, t := range Targets() {
		names = append(names, t.Name)
	}
	return names
}

// TargetByName returns the target of that name.
func TargetByName(name string) (Target, error) {
	if other, ok := aliases[name]; ok {
		name = other
	}
	for _, t := range Targets() {
		if t.Name == name {
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("can't write %q: the target formats are %s", name, words(TargetNames()))
}

// words joins what may be chosen: "a, b and c".
func words(list []string) string {
	if n := len(list); n > 1 {
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
	return strings.Join(list, "")
}

// Has says whether the target has that option.
func (t Target) Has(option string) bool {
	return slices.ContainsFunc(t.Options, func(o TargetOption) bool { return o.Name == option })
}

// Settings reads options as qemu-img takes them: NAME=VALUE, several of them apart by commas. What is
// not named has its default.
func (t Target) Settings(list []string) (Settings, error) {
	s := Settings{}
	for _, o := range t.Options {
		s[o.Name] = o.Default
	}
	for _, text := range list {
		for item := range strings.SplitSeq(text, ",") {
			if ours, ok := t.spellings[item]; ok {
				item = ours
			}
			key, value, ok := strings.Cut(item, "=")
			i := slices.IndexFunc(t.Options, func(o TargetOption) bool { return o.Name == key })
			switch {
			case i < 0 && len(t.Options) == 0:
				return nil, fmt.Errorf("%s has no options, and so no %q", t.Name, key)
			case i < 0:
				var names []string
				for _, o := range t.Options {
					names = append(names, o.Name)
				}
				return nil, fmt.Errorf("%s has no option %q: it has %s", t.Name, key, words(names))
			case !ok:
				return nil, fmt.Errorf("the option %s needs a value: %s=%s", key, key, t.Options[i].Default)
			}
			if err := t.Options[i].check(value); err != nil {
				return nil, err
			}
			s[key] = value
		}
	}
	return s, nil
}

// check refuses a value that the option does not take.
func (o TargetOption) check(value string) error {
	if o.Values == nil {
		n, err := parseSize(value)
		if err == nil {
			err = o.bytes(n)
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", o.Name, value, err)
		}
		return nil
	}
	if !slices.Contains(o.Values, value) {
		return fmt.Errorf("%s can't be %q: use %s", o.Name, value, strings.Join(o.Values, ", "))
	}
	return nil
}

// parseSize reads a number of bytes: 65536, 64K, 2M. K, M and G count in powers of 1024.
func parseSize(s string) (int64, error) {
	shift := 0
	if n := len(s); n > 0 {
		switch s[n-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		}
		if shift > 0 {
			s = s[:n-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("it is no size such as 65536, 64K or 2M")
	}
	return n << shift, nil
}

// Streams says whether the target can be written to a pipe.
func (t Target) Streams(s Settings) bool { return t.streams(s) }

// Compresses says whether the target is compressed.
func (t Target) Compresses(s Settings) bool { return t.packs(s) }

// Raw says that the target has no structure of its own: whoever opens it goes by its content.
func (t Target) Raw() bool { return t.writer == nil }

// Write writes img to out: front to back or, where the target needs it, at any place. out is a File, a
// Device (for a target that is Raw) or, if the target streams, any writer. o.Progress gets its total.
func (t Target) Write(ctx context.Context, img formats.Image, out io.Writer, s Settings, o Options) (Result, error) {
	if err := CheckSize(img); err != nil {
		return Result{}, err
	}
	var w Writer
	if t.writer != nil {
		var err error
		if w, err = t.writer(out, img.Size(), s); err != nil { // before the tables are walked: it may refuse the size
			return Result{}, err
		}
	}
	if o.Progress != nil {
		total, err := Total(ctx, img, o.Sparse)
		if err != nil {
			return Result{}, err
		}
		o.Progress.Total.Store(total)
	}
	if w != nil {
		return Stream(ctx, img, w, o)
	}
	if at, ok := out.(RawTarget); ok {
		return Raw(ctx, img, at, o)
	}
	return RawStream(ctx, img, out, o)
}

// Total returns the bytes of the blocks that a run has to read, as Progress.Read counts them.
func Total(ctx context.Context, img formats.Image, sparse Sparse) (int64, error) {
	if sparse == SparseNone {
		return bitmap.Blocks(img.Size()) * BlockSize, nil
	}
	n, err := Count(ctx, img)
	return n * BlockSize, err
}

// anywhere returns out as what can be written to at any place.
func anywhere(out io.Writer) (io.WriterAt, error) {
	at, ok := out.(io.WriterAt)
	if !ok {
		return nil, fmt.Errorf("the format can't be written front to back: name a file")
	}
	return at, nil
}

func zvhd2Writer(out io.Writer, size int64, s Settings) (Writer, error) {
	level, err := zvhd2.ParseLevel(s["level"])
	if err != nil {
		return nil, err
	}
	codec := zvhd2.Zstd
	if s["codec"] == zvhd2.Zlib.String() {
		codec = zvhd2.Zlib
	}
	return zvhd2.NewWriter(out, zvhd2.Options{OrigSize: size, Codec: codec, Level: level})
}

// zvhdLevels are zlib's for ours.
var zvhdLevels = map[string]int{"fastest": 1, "default": zvhd.DefaultLevel, "better": 8, "best": 9}

func zvhdWriter(out io.Writer, size int64, s Settings) (Writer, error) {
	return zvhd.NewWriter(out, zvhd.Options{OrigSize: size, Level: zvhdLevels[s["level"]]})
}

var (
	qcow2Codecs = map[string]qcow2.Compression{"none": qcow2.Uncompressed, "zlib": qcow2.Zlib, "zstd": qcow2.Zstd}
	qcow2Levels = map[string]qcow2.Level{"fastest": qcow2.LevelFastest, "default": qcow2.LevelDefault, "better": qcow2.LevelBetter, "best": qcow2.LevelBest}
)

func qcow2Writer(out io.Writer, size int64, s Settings) (Writer, error) {
	at, err := anywhere(out)
	if err != nil {
		return nil, err
	}
	cluster, err := parseSize(s["cluster_size"])
	if err != nil {
		return nil, err
	}
	return qcow2.NewWriter(at, qcow2.WriterOptions{
		Size: size, ClusterSize: int(cluster), Compression: qcow2Codecs[s["compression_type"]], Level: qcow2Levels[s["level"]],
	})
}

var (
	vpcSubformats = map[string]vhd.Subformat{"dynamic": vhd.Dynamic, "fixed": vhd.Fixed}
	vpcRoundings  = map[string]vhd.Rounding{"exact": vhd.Exact, "geometry": vhd.Geometry, "mib": vhd.MiB}
)

func vpcWriter(out io.Writer, size int64, s Settings) (Writer, error) {
	o := vhd.WriterOptions{Size: size, Subformat: vpcSubformats[s["subformat"]], Rounding: vpcRoundings[s["rounding"]]}
	if at, ok := out.(io.WriterAt); ok {
		return vhd.NewWriter(at, o)
	}
	return vhd.NewFixedStream(out, o)
}

var vmdkLevels = map[string]vmdk.Level{"fastest": vmdk.LevelFastest, "default": vmdk.LevelDefault, "better": vmdk.LevelBetter, "best": vmdk.LevelBest}

func vmdkWriter(out io.Writer, size int64, s Settings) (Writer, error) {
	o := vmdk.WriterOptions{Size: size, AdapterType: s["adapter_type"], Level: vmdkLevels[s["level"]]}
	if f, ok := out.(*File); ok {
		o.Name = filepath.Base(f.name) // VMware looks for the file by the name in it
	}
	if streamOptimized(s) {
		return vmdk.NewStreamWriter(out, o)
	}
	at, err := anywhere(out)
	if err != nil {
		return nil, err
	}
	return vmdk.NewSparseWriter(at, o)
}
