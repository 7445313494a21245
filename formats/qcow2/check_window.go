package qcow2

import (
	"encoding/binary"
	"fmt"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const copiedWrong = "an entry's flag that the reference count is one contradicts the reference count"

// clusterSet is a set of clusters of a window.
type clusterSet []uint64

func (b clusterSet) get(i int64) bool { return b[i>>6]>>(i&63)&1 != 0 }
func (b clusterSet) set(i int64)      { b[i>>6] |= 1 << (i & 63) }

// window is the part of the file whose references are being counted.
type window struct {
	*checker
	first  int64      // cluster
	refs   []uint32   // references to each
	max    uint32     // what refs counts up to
	one    clusterSet // those whose reference count in the file is one
	meta   clusterSet // those with metadata
	shared clusterSet // those with metadata and something else
	differ mismatch
}

// newWindow returns a window with room for windowClusters, or for the whole file if that is less.
func newWindow(c *checker) *window {
	n := min(windowClusters, c.clusters+1)
	words := (n + 63) / 64
	return &window{checker: c, max: maxRefcount(c.refcountOrder),
		refs: make([]uint32, n), one: make(clusterSet, words), meta: make(clusterSet, words), shared: make(clusterSet, words)}
}

// survey reports whether this is the first pass, in which all that doesn't depend on counts is
// checked.
func (w *window) survey() bool { return w.first == 0 }

// check counts the references to the clusters of the window that starts with first, and compares.
func (w *window) check(first int64) error {
	w.first = first
	clear(w.refs)
	clear(w.one)
	clear(w.meta)
	clear(w.shared)
	stop := first + int64(len(w.refs))
	err := w.refcounts(first, min(stop, w.clusters), func(k int64, n uint64) {
		if n == 1 {
			w.one.set(k - first)
		}
	}, func(_, _ int64) {})
	if err != nil {
		return err
	}
	// Metadata comes first, so that data in the same place is noticed.
	for _, r := range w.regions {
		a, b := w.span(r)
		w.addSpan(a, b, 1, true)
	}
	w.countL2Tables()
	for _, step := range []func() error{w.countBitmaps, w.countData} {
		if err := step(); err != nil {
			return err
		}
	}
	w.countRefBlocks()
	return w.compare(first, min(stop, w.end))
}

// addSpan adds n references to each cluster from a to b that is in the window.
func (w *window) addSpan(a, b, n int64, meta bool) {
	for i := max(a-w.first, 0); i <= min(b-w.first, int64(len(w.refs))-1); i++ {
		if w.meta.get(i) {
			w.shared.set(i)
		}
		if meta {
			w.meta.set(i)
		}
		sum := int64(w.refs[i]) + n
		if over := sum - int64(w.max); over > 0 {
			w.corrupt((w.first+i)<<w.clusterBits, over, "a cluster has more references than can be counted")
			sum = int64(w.max)
		}
		w.refs[i] = uint32(sum)
	}
}

// countL2Tables counts the L2 tables themselves.
func (w *window) countL2Tables() {
	for i := range w.l2.list {
		t := &w.l2.list[i]
		k := int64(t.cluster)
		at := k - w.first
		if at < 0 || at >= int64(len(w.refs)) {
			continue
		}
		w.addSpan(k, k, t.uses(), true)
		wrong := int64(t.copied)
		if w.one.get(at) {
			wrong = int64(t.active) - wrong
		}
		w.corrupt(k<<w.clusterBits, wrong, "the L1 "+copiedWrong)
	}
}

// countData goes through the L2 tables that have references in the window.
func (w *window) countData() error {
	here := uint8(w.first / windowClusters)
	for i := range w.l2.list {
		t := &w.l2.list[i]
		if w.survey() {
			t.first = maxWindows - 1
		} else if here < t.first || here > t.last {
			continue
		}
		if err := w.walkTable(t); err != nil {
			return err
		}
	}
	return nil
}

// walkTable counts what an L2 table points at.
func (w *window) walkTable(t *l2Table) error {
	base, size := int64(t.cluster)<<w.clusterBits, int64(1)<<w.entryBits()
	v := visit{window: w, t: t}
	for off := int64(0); off < w.clusterSize(); {
		p := w.buf[:min(checkChunk, w.clusterSize()-off)]
		empty, err := w.holes.Empty(base+off, int64(len(p)))
		if err == nil && empty {
			off += int64(len(p))
			continue
		}
		if err == nil {
			err = w.read(p, base+off, "an L2 table")
		}
		if err != nil {
			return err
		}
		for ; len(p) > 0; p, off = p[size:], off+size {
			v.at = base + off
			var bitmap uint64
			if size > 8 {
				bitmap = binary.BigEndian.Uint64(p[8:])
			}
			if e := binary.BigEndian.Uint64(p); e|bitmap != 0 {
				if err := v.entry(e, bitmap); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// visit is an entry of an L2 table that is being looked at.
type visit struct {
	*window
	t  *l2Table
	at int64 // where in the file it is
	// next is where the cluster after the one before ends, if there was one.
	next int64
}

// entry counts what the L2 entry points at.
func (v *visit) entry(e, bitmap uint64) error {
	c, what := v.parse(e, bitmap)
	if what != "" {
		v.fault(what)
	}
	switch {
	case c.kind == mapped.Encoded:
		v.compressed(c, e, what == "")
	case c.kind == mapped.Data || c.host != 0:
		return v.plain(c, e)
	}
	return nil
}

func (v *visit) parse(e, bitmap uint64) (cluster, string) {
	if v.extended() {
		return v.parseExtended(e, bitmap)
	}
	return v.parseL2Entry(e)
}

// fault reports damage once for each use of the table, in the first pass.
func (v *visit) fault(what string) {
	if v.survey() {
		v.corrupt(v.at, v.t.uses(), "an L2 entry "+what)
	}
}

// compressed counts the clusters that compressed data lies in.
func (v *visit) compressed(c cluster, e uint64, good bool) {
	if e&entryCopied != 0 {
		v.fault("is compressed, and says that its reference count is one")
	}
	if !good {
		return
	}
	if v.survey() {
		n := int64(v.t.active)
		v.sum.Allocated += n
		v.sum.Compressed += n
		v.sum.Fragmented += n // as in QEMU: none starts at a sector of its own
	}
	if !v.inBounds(uint64(c.host), uint64(c.stored)) {
		v.fault("points past the end of the file")
		return
	}
	v.use(region{c.host, c.stored})
}

// plain counts a cluster that is stored as it is, or kept for that.
func (v *visit) plain(c cluster, e uint64) error {
	cs := v.clusterSize()
	if v.survey() {
		v.sum.Allocated += int64(v.t.active)
		if v.next != 0 && c.host != v.next {
			v.sum.Fragmented += int64(v.t.active)
		}
		v.next = c.host + cs
	}
	if v.incompatible&featureDataFile != 0 { // nothing is counted there
		if e&entryCopied == 0 && v.survey() {
			v.corrupt(v.at, int64(v.t.active), copiedWrong)
		}
		return nil
	}
	k := c.host >> v.clusterBits
	if !v.inBounds(uint64(c.host), uint64(cs)) {
		v.fault("points past the end of the file")
		if !v.survey() {
			return nil
		}
		return v.checkCopiedOutside(uint64(k), e, v.t.active > 0, v.at)
	}
	if c.kind == mapped.Data && c.host+cs > v.fileSize && v.cut(c) {
		v.fault("points at data that is cut by the end of the file")
	}
	v.use(region{c.host, cs})
	if i := k - v.first; i >= 0 && i < int64(len(v.refs)) && v.one.get(i) != (e&entryCopied != 0) {
		v.corrupt(v.at, int64(v.t.active), copiedWrong)
	}
	return nil
}

// cut reports whether bytes of c that belong to the disk are missing from the file.
func (v *visit) cut(c cluster) bool {
	need := c.needed(&v.header)
	index := uint32(v.at & (v.clusterSize() - 1) >> v.entryBits())
	if n, last := v.l2.tails[tail{v.t.cluster, index}]; last {
		need = min(need, n)
	}
	return need > 0 && c.host+need > v.fileSize
}

// use counts the clusters of r, as often as the table is used.
func (v *visit) use(r region) {
	a, b := v.span(r)
	if v.survey() {
		v.touch(a, b)
		v.t.first = min(v.t.first, uint8(a/windowClusters))
		v.t.last = max(v.t.last, uint8(b/windowClusters))
	}
	v.addSpan(a, b, v.t.uses(), false)
}

// countRefBlocks counts the refcount blocks, each of which must be the only user of its cluster.
func (w *window) countRefBlocks() {
	for i := int64(0); i < int64(len(w.refTable)/8); i++ {
		e := w.refEntry(i)
		k := int64(e >> w.clusterBits)
		at := k - w.first
		if e == 0 || e&uint64(w.clusterSize()-1) != 0 || k >= w.clusters || at < 0 || at >= int64(len(w.refs)) {
			continue
		}
		w.addSpan(k, k, 1, true)
		if w.refs[at] != 1 {
			w.corrupt(k<<w.clusterBits, 1, fmt.Sprintf("the cluster of refcount block %d is used %d times", i, w.refs[at]))
		}
	}
}

// compare compares the references counted with those that the file has, for the clusters
// [first, end).
func (w *window) compare(first, end int64) error {
	compare := func(k int64, n uint64) {
		i := k - first
		refs := uint64(w.refs[i])
		if n|refs == 0 {
			return
		}
		w.sum.End = (k + 1) << w.clusterBits
		shared := w.shared.get(i)
		if shared {
			w.corrupt(k<<w.clusterBits, 1, "metadata and something else are in the same cluster")
		}
		if n > refs || n < refs && !shared {
			w.differs(k, n, refs)
		}
	}
	err := w.refcounts(first, end, compare, func(from, to int64) {
		for i, refs := range w.refs[from-first : to-first] {
			if refs != 0 {
				compare(from+int64(i), 0)
			}
		}
	})
	w.reportMismatch()
	return err
}

// mismatch is a run of clusters with the same wrong reference count.
type mismatch struct {
	first, count int64
	n, refs      uint64 // the count, and what it should be
}

// differs notes that cluster k has refs references, but the count n.
func (w *window) differs(k int64, n, refs uint64) {
	if d := &w.differ; d.count > 0 && d.n == n && d.refs == refs && k == d.first+d.count {
		d.count++
		return
	}
	w.reportMismatch()
	w.differ = mismatch{first: k, count: 1, n: n, refs: refs}
}

// reportMismatch reports the run that has ended.
func (w *window) reportMismatch() {
	d := w.differ
	w.differ = mismatch{}
	if d.count == 0 {
		return
	}
	what := fmt.Sprintf("the reference count is %d, and there are %d references", d.n, d.refs)
	if w.incompatible&featureDirty != 0 {
		what += " (the image was not closed properly)"
	}
	w.found(formats.Finding{Leak: d.n > d.refs, Offset: d.first << w.clusterBits, Count: d.count, What: what})
}
