package pipeline

import (
	"testing"

	"imgferry/formats/zvhd2"
)

// buffers is a fixed load.
type buffers struct{ full, free, all, number int }

func (b buffers) Load() (full, free, all int) { return b.full, b.free, b.all }
func (b buffers) Number() int                 { return b.number }

func TestAutoLevel(t *testing.T) {
	run := func(b buffers, from zvhd2.Level, parts int) zvhd2.Level {
		var a autoLevel
		for range parts {
			b.number++
			from = a.next(from, b)
		}
		return from
	}
	slowLink, slowEncoder, even := buffers{full: 15, free: 1, all: 20}, buffers{full: 0, free: 16, all: 20}, buffers{full: 4, free: 6, all: 20}
	for _, c := range []struct {
		load  buffers
		parts int
		want  zvhd2.Level
	}{
		{slowLink, 4, zvhd2.LevelDefault},
		{slowLink, 5, zvhd2.LevelBetter},
		{slowLink, 100, zvhd2.LevelBest},
		{slowEncoder, 4, zvhd2.LevelDefault},
		{slowEncoder, 100, zvhd2.LevelFastest},
		{even, 100, zvhd2.LevelDefault},
	} {
		if got := run(c.load, zvhd2.LevelDefault, c.parts); got != c.want {
			t.Errorf("%+v: %v after %d parts", c.load, got, c.parts)
		}
	}
}
