package pipeline

import (
	"cmp"
	"slices"

	"imgferry/convert"
	"imgferry/formats/zvhd2"
	"imgferry/upload"
)

// effort is the levels in the order of the work that they take.
var effort = [...]zvhd2.Level{zvhd2.LevelFastest, zvhd2.LevelDefault, zvhd2.LevelBetter, zvhd2.LevelBest}

const (
	// steadyParts is how many parts begin with the first level, whatever is measured: by the first
	// three a later run without the journal knows the upload for its own.
	steadyParts = 4
	// patientParts is for how many parts in a row the same end must be the slower one.
	patientParts = 3
)

// autoLevel chooses how hard to compress by which end waits for the other. Where parts wait to be sent,
// the encoder has time to try harder, so that there is less to send; where senders wait for parts, it
// should hurry.
type autoLevel struct {
	harder, easier int // parts in a row that began with the link, or the encoder, behind
	// choosing, if not nil, is called before each choice, and what it returns after it.
	choosing func(part int) (chosen func())
}

// loaded is what the choice is made by: see upload.PartWriter.
type loaded interface {
	Load() (full, free, all int)
	Number() int
}

// next returns the level for the part that begins now, after one of level now.
func (a *autoLevel) next(now zvhd2.Level, parts loaded) zvhd2.Level {
	if a.choosing != nil {
		defer a.choosing(parts.Number())()
	}
	full, free, all := parts.Load()
	switch {
	case full > all/2 || free == 0:
		a.harder, a.easier = a.harder+1, 0
	case full == 0 && free > all/2:
		a.harder, a.easier = 0, a.easier+1
	default:
		a.harder, a.easier = 0, 0
	}
	i := slices.Index(effort[:], now)
	switch {
	case parts.Number() <= steadyParts:
		return now
	case a.harder >= patientParts && i < len(effort)-1:
		i++
	case a.easier >= patientParts && i > 0:
		i--
	default:
		return now
	}
	a.harder, a.easier = 0, 0
	return effort[i]
}

// changesLevel says whether the level may change on the way: blocks are then read again, which a source that
// is read in order only does not allow.
func (p *Push) changesLevel() bool { return p.AutoLevel && !p.Disk.Image.Sequential() }

// encoderSize is what an encoder of each level takes once it has encoded a block, in bytes, as measured: mostly the
// tables in which it looks for matches.
var encoderSize = [zvhd2.LevelBest + 1]int64{
	zvhd2.LevelFastest: 3 << 20, zvhd2.LevelDefault: 4 << 20, zvhd2.LevelBetter: 7 << 20, zvhd2.LevelBest: 37 << 20,
}

const (
	// leastBuffers is how many part buffers are left beside the tables at least: one fills while another is sent.
	leastBuffers = 2
	// fairBuffers is for how many there is to be room before a second encoder has its tables.
	fairBuffers = 4
)

// tables is what the encoders of one thread may take beyond what the engine counts for them, which is one of the
// default level, in bytes. Those of levels that were left stay to the end, for the next block of that level.
func (p *Push) tables() int64 {
	most := encoderSize[min(p.Level, zvhd2.LevelBest)]
	if p.changesLevel() {
		most = 0
		for _, size := range encoderSize {
			most += size
		}
	}
	return max(0, most-encoderSize[zvhd2.LevelDefault])
}

func (p *Push) memory() int64 { return cmp.Or(p.Memory, upload.DefaultMemory) }

// HeapLimit is what a run takes at most in memory, in bytes: part buffers, slots and encoders.
func (p *Push) HeapLimit() int64 { return p.memory() + engineMemory }

// threads is how many blocks are encoded at once. The tables of high levels come out of the memory for part
// buffers: where encoding is slow, few parts wait to be sent.
func (p *Push) threads(plan upload.Plan) int {
	n := convert.DefaultWorkers(engineMemory)
	if t := p.tables(); t > 0 {
		n = max(1, min(n, int((p.memory()-fairBuffers*plan.BufferSize)/t)))
	}
	return n
}
