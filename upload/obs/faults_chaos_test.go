package obs_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgferry/sandbox/objectstore"
	"imgferry/upload"
	"imgferry/upload/obs"
	"imgferry/upload/uploadtest"
)

const (
	// least is how often every class of faults must have met every call.
	least = 5
	// chaosParts and chaosPart are the parts of an object, and their size in bytes but for the last.
	chaosParts, chaosPart = 8, 24 << 10
	// atOnce is how many runs go on at the same time: most of them wait most of the time.
	atOnce = 48
)

// hasty is a policy that waits for next to nothing. A deadline must be longer than any answer takes on a
// busy machine, but a run that has to be repeated for that does no harm.
var hasty = upload.Policy{Tries: 7, Base: time.Millisecond, Max: 2 * time.Millisecond, Deadline: 800 * time.Millisecond, Stall: 400 * time.Millisecond}

// calm is the policy of a run after the faults: on a busy machine answers take a while, and it must succeed.
var calm = upload.Policy{Base: time.Millisecond, Max: 2 * time.Millisecond}

// hold is how long a stalled connection is held: longer than any deadline of hasty.
const hold = 3 * time.Second

// ordeal is one run of something against a store that fails.
type ordeal struct {
	t      *testing.T
	name   string
	faults []uploadtest.Fault
	proxy  *uploadtest.Proxy
	bucket *obs.Bucket // through the proxy
	direct *obs.Bucket
	key    string
	data   []byte
	raw    bool // its parts are not buffered
	seed   uint64
	// late says that a Begin got no answer in time: on a busy machine the store may carry it out after the
	// client looked for it, and leave an upload without parts. The next run of the same takes that.
	late atomic.Bool
	// earlier is the id of an unfinished upload that was there before, or "".
	earlier string
}

// errorf reports what is wrong with a run, and how it came to that.
func (o *ordeal) errorf(format string, args ...any) {
	o.t.Helper()
	o.t.Errorf("%s, faults %v: %s", o.name, o.faults, fmt.Sprintf(format, args...))
}

// met reports whether one of the faults is of one of the classes, at the call.
func (o *ordeal) met(call uploadtest.Call, classes ...uploadtest.Class) bool {
	counts := o.proxy.Injected()
	for _, c := range classes {
		if counts[c][call] > 0 {
			return true
		}
	}
	return false
}

// send uploads the data under a policy.
func (o *ordeal) send(ctx context.Context, to *obs.Bucket, change func(*upload.Config)) (upload.Result, error) {
	progress := new(upload.Progress)
	c := upload.Config{Store: to, Key: o.key, Metadata: upload.Metadata{"digest": "d"}, Workers: 3, Retry: hasty, Progress: progress}
	c.Retry.OnRetry = func(op string, _ int, err error, _ time.Duration) {
		if strings.HasPrefix(op, "begin") && strings.Contains(err.Error(), "no answer") {
			o.late.Store(true)
		}
	}
	if change != nil {
		change(&c)
	}
	parts := upload.RawPlan{Size: int64(len(o.data)), PartSize: chaosPart, Count: chaosParts}.Parts(bytes.NewReader(o.data))
	var result upload.Result
	var err error
	if o.raw {
		result, err = upload.Send(ctx, c, parts)
	} else {
		c.Buffers = 4
		g, ctx := errgroup.WithContext(ctx)
		w := upload.NewPartWriter(ctx, upload.Plan{PartSize: chaosPart, BufferSize: chaosPart, Buffers: c.Buffers})
		g.Go(func() error {
			for off := 0; off < len(o.data); off += chaosPart / 4 {
				if _, err := w.Write(o.data[off:min(off+chaosPart/4, len(o.data))]); err != nil {
					return err
				}
			}
			return w.Close()
		})
		g.Go(func() error {
			result, err = upload.Send(ctx, c, w.Parts)
			return err
		})
		_ = g.Wait() // the sender's error says it all
	}
	if done := progress.Sent() + progress.Skipped(); done > int64(len(o.data)) || err == nil && done != int64(len(o.data)) {
		o.errorf("%d bytes are counted of %d", done, len(o.data))
	}
	return result, err
}

// unfinished lists the ids of the key's unfinished uploads.
func (o *ordeal) unfinished() []string {
	list, err := o.direct.Uploads(context.Background(), o.key)
	if err != nil {
		o.errorf("%v", err)
	}
	var ids []string
	for _, u := range list {
		if u.Key != o.key {
			continue // a longer key
		}
		if o.late.Load() {
			if parts, err := o.direct.Parts(context.Background(), o.key, u.UploadID); err == nil && len(parts) == 0 {
				continue
			}
		}
		ids = append(ids, u.UploadID)
	}
	return ids
}

// whole reports whether the object is there, and complains if it holds anything but the data.
func (o *ordeal) whole() bool {
	ctx := context.Background()
	object, err := o.direct.Stat(ctx, o.key)
	if errors.Is(err, upload.ErrNoObject) {
		return false
	}
	if err != nil || object.Size != int64(len(o.data)) || object.Metadata["digest"] != "d" {
		o.errorf("the object is %+v, %v", object, err)
		return false
	}
	got, err := get(ctx, o.direct, o.key, object.Size)
	if err != nil || !bytes.Equal(got, o.data) {
		o.errorf("the object holds %d other bytes, %v", len(got), err)
	}
	return true
}

func get(ctx context.Context, b *obs.Bucket, key string, size int64) ([]byte, error) {
	r, err := b.Get(ctx, key, 0, size, "")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// judge compares what a Send left with what it says.
func (o *ordeal) judge(err error) {
	var kept *upload.UnfinishedError
	var stuck *upload.AbortError
	left := o.unfinished()
	others := 0 // uploads that the run has nothing to do with
	for _, id := range left {
		if id == o.earlier {
			others++
		}
	}
	switch {
	case err == nil:
		if !o.whole() {
			o.errorf("there is no object")
		}
		if len(left) > others || others > 0 && !o.met(uploadtest.ListParts, uploadtest.Classes...) && !o.met(uploadtest.ListUploads, uploadtest.Classes...) {
			o.errorf("left %v (before: %s)", left, o.earlier)
		}
	case errors.As(err, &kept):
		o.resume(kept.UploadID, left)
	case errors.As(err, &stuck):
		// After an interrupt there is a second to abort it, which a busy machine may need for other things.
		if !o.met(uploadtest.Abort, uploadtest.Classes...) && !errors.Is(err, upload.ErrInterrupted) || len(left) > 1 {
			o.errorf("%v, left %v", err, left)
		}
		if err := o.direct.Abort(context.Background(), o.key, stuck.UploadID); err != nil {
			o.errorf("%v", err)
		}
	default:
		// An object that is complete but can't be proven is no harm; half of one would be.
		o.whole()
		if len(left) > others && !o.met(uploadtest.Abort, uploadtest.Vanished) && !o.adopts(err, left) {
			o.errorf("%v, left %v", err, left)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "://") || strings.Contains(err.Error(), secretKey) || strings.Contains(err.Error(), "\n")) {
		o.errorf("unclear: %q", err)
	}
}

// adopts reports whether what an interrupt left is one upload without parts, of a Begin that was on its
// way, and the next run takes it.
func (o *ordeal) adopts(err error, left []string) bool {
	if !errors.Is(err, upload.ErrInterrupted) || len(left) != 1 {
		return false
	}
	parts, err := o.direct.Parts(context.Background(), o.key, left[0])
	if err != nil || len(parts) > 0 {
		return false
	}
	_, err = o.send(context.Background(), o.direct, calmly)
	return err == nil && len(o.unfinished()) == 0 && o.whole()
}

func calmly(c *upload.Config) { c.Retry = calm }

// resume goes on with an upload that was kept.
func (o *ordeal) resume(id string, left []string) {
	parts, err := o.direct.Parts(context.Background(), o.key, id)
	if errors.Is(err, upload.ErrNoUpload) && o.whole() {
		return // the store took the last step, and nobody was there to hear of it
	}
	if len(left) != 1 || left[0] != id || err != nil || len(parts) == 0 {
		o.errorf("the upload %s is kept, left %v with %v, %v", id, left, parts, err)
		return
	}
	var have int64
	for _, p := range parts {
		have += p.Size
	}
	result, err := o.send(context.Background(), o.direct, calmly)
	// More than it had: parts that were on their way.
	if err != nil || !result.Resumed || result.Skipped < have || result.UploadID != id {
		o.errorf("resume: %+v, %v; the store had %d bytes", result, err, have)
		return
	}
	if left := o.unfinished(); len(left) > 0 || !o.whole() {
		o.errorf("after the resume: left %v", left)
	}
}

// mustPass reports whether the faults are such that the run must succeed all the same.
func (o *ordeal) mustPass() bool {
	for _, f := range o.faults {
		switch {
		case f.Class.Permanent() || f.Class == uploadtest.Tomorrow, f.Class == uploadtest.WrongETag && f.Call == uploadtest.Head:
			return false
		}
	}
	return true
}

// fresh sends an object.
func fresh(o *ordeal) {
	_, err := o.send(context.Background(), o.bucket, nil)
	if err != nil && o.mustPass() {
		o.errorf("%v", err)
	}
	o.judge(err)
}

// prepare leaves an unfinished upload with some of the parts.
func (o *ordeal) prepare() {
	ctx := context.Background()
	id, err := o.direct.Begin(ctx, o.key, upload.Metadata{"digest": "d"})
	if err != nil {
		o.errorf("%v", err)
	}
	for _, n := range []int{1, 2, 4} {
		body := o.data[(n-1)*chaosPart : n*chaosPart]
		if _, err := o.direct.PutPart(ctx, o.key, id, n, bytes.NewReader(body), int64(len(body)), nil); err != nil {
			o.errorf("%v", err)
		}
	}
	o.earlier = id
}

// resumed sends an object of which some parts are there.
func resumed(o *ordeal) {
	o.prepare()
	result, err := o.send(context.Background(), o.bucket, nil)
	if err != nil && o.mustPass() {
		o.errorf("%v", err)
	}
	if result.Resumed && result.UploadID != o.earlier {
		o.errorf("resumed %s instead of %s", result.UploadID, o.earlier)
	}
	if result.UploadID == o.earlier {
		o.earlier = "" // it is the run's from now on
	}
	o.judge(err)
}

var errRefused = errors.New("the source changed")

// failing fails for good when every part is there.
func failing(o *ordeal) {
	_, err := o.send(context.Background(), o.bucket, func(c *upload.Config) {
		c.BeforeComplete = func(context.Context) error { return errRefused }
	})
	if !errors.Is(err, errRefused) {
		o.errorf("%v", err)
	}
	if o.whole() {
		o.errorf("the object is there")
	}
	o.judge(err)
}

// objects does what is done with small and whole objects.
func objects(o *ordeal) {
	ctx := context.Background()
	o.data = o.data[:chaosPart]
	size, sum := int64(len(o.data)), md5.Sum(o.data)
	call := func(op string, f func(context.Context) error) bool {
		err := upload.Retry(ctx, hasty, op, f)
		if err != nil && o.mustPass() {
			o.errorf("%s: %v", op, err)
		}
		return err == nil
	}
	call("check the bucket", o.bucket.CheckBucket)
	call("put", func(ctx context.Context) error {
		_, err := o.bucket.Put(ctx, o.key, bytes.NewReader(o.data), size, &sum, upload.Metadata{"digest": "d"})
		return err
	})
	there := o.whole()
	etag := fmt.Sprintf("%x", sum)
	if call("set the metadata", func(ctx context.Context) error {
		_, err := o.bucket.SetMetadata(ctx, upload.Object{Key: o.key, Size: size, ETag: etag}, upload.Metadata{"digest": "d", "more": "m"})
		return err
	}) {
		if object, err := o.direct.Stat(ctx, o.key); err != nil || object.Metadata["more"] != "m" || !o.whole() {
			o.errorf("after the change of its metadata: %+v, %v", object, err)
		}
	}
	if call("get", func(ctx context.Context) error {
		got, err := get(ctx, o.bucket, o.key, size)
		if err != nil {
			var e *upload.Error
			if !errors.As(err, &e) { // a reader's errors are the connection's
				err = &upload.Error{Op: "get", Temporary: true, Err: err}
			}
			return err
		}
		if !bytes.Equal(got, o.data) {
			return errors.New("other bytes")
		}
		return nil
	}) && !there {
		o.errorf("read what is not there")
	}
	// A part of it becomes another object.
	from := upload.Object{Key: o.key, ETag: etag}
	id, err := o.direct.Begin(ctx, o.key+".copy", nil)
	if err != nil {
		o.errorf("%v", err)
	}
	var part upload.StoredPart
	if call("copy a part", func(ctx context.Context) (err error) {
		part = upload.StoredPart{Number: 1, Size: 1000}
		part.ETag, err = o.bucket.CopyPart(ctx, o.key+".copy", id, 1, from, 100, 1000)
		return err
	}) {
		if want := md5.Sum(o.data[100:1100]); part.ETag != fmt.Sprintf("%x", want) && !o.met(uploadtest.CopyPart, uploadtest.WrongETag) {
			o.errorf("the copied part has the ETag %s", part.ETag)
		}
		parts, err := o.direct.Parts(ctx, o.key+".copy", id)
		if err != nil || len(parts) != 1 || parts[0].Size != 1000 {
			o.errorf("%+v, %v", parts, err)
		}
	}
	if err := o.direct.Abort(ctx, o.key+".copy", id); err != nil {
		o.errorf("%v", err)
	}
	if call("remove", func(ctx context.Context) error { return o.bucket.Remove(ctx, o.key) }) {
		if _, err := o.direct.Stat(ctx, o.key); !errors.Is(err, upload.ErrNoObject) {
			o.errorf("removed, but: %v", err)
		}
	}
}

// interrupted ends at a moment that follows from the seed.
func interrupted(o *ordeal) {
	r := rand.New(rand.NewPCG(o.seed, 2))
	calls := []uploadtest.Call{uploadtest.ListUploads, uploadtest.Begin, uploadtest.PutPart, uploadtest.PutPart, uploadtest.PutPart, uploadtest.Complete, uploadtest.Head}
	call, n, stage := calls[r.IntN(len(calls))], 1, []uploadtest.Stage{uploadtest.Arrived, uploadtest.Done}[r.IntN(2)]
	if call == uploadtest.PutPart {
		n = 1 + r.IntN(chaosParts)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var once sync.Once
	o.proxy.Watch(func(e uploadtest.Event) {
		if e.Call == call && e.N >= n && e.Stage == stage {
			once.Do(func() { cancel(upload.ErrInterrupted) })
		}
	})
	_, err := o.send(ctx, o.bucket, nil)
	o.proxy.Close() // what was on its way is there now
	if err != nil && !errors.Is(err, upload.ErrInterrupted) {
		o.errorf("interrupted at %s %d: %v", call, n, err)
	}
	o.judge(err)
}

func TestChaos(t *testing.T) {
	before := runtime.NumGoroutine()
	var said syncBuffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	store, err := objectstore.Open(t.TempDir(), objectstore.Options{
		NoSync: true, MinPartSize: 1, Credentials: func(string, string) (string, error) { return secretKey, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(store.Handler())
	transport := obs.NewTransport(0)
	direct := bucket(t, server, noToken, func(c *obs.Config) { c.Transport = transport })

	all := make(uploadtest.Counts)
	var mu sync.Mutex // guards all
	var runs errgroup.Group
	runs.SetLimit(atOnce)
	count := 0
	start := func(kind string, f func(*ordeal), schedule [][]uploadtest.Fault) {
		for i, faults := range schedule {
			count++
			seed := uint64(count)
			runs.Go(func() error {
				o := &ordeal{
					t: t, name: fmt.Sprintf("%s %d", kind, i), faults: faults, direct: direct, seed: seed,
					key: fmt.Sprintf("%s/%d", kind, i), raw: seed%2 == 0,
					data: uploadtest.Noise(seed, (chaosParts-1)*chaosPart+int(seed*997)%chaosPart+1),
				}
				o.proxy = uploadtest.NewProxy(t, uploadtest.Options{Target: server.URL, Seed: seed, Hold: hold, SmallBuffers: true})
				defer o.proxy.Close()
				to := obs.NewTransport(0)
				defer to.CloseIdleConnections()
				to.DialContext = smallDial
				o.bucket = bucket(t, server, noToken, func(c *obs.Config) { c.Endpoint, c.Transport = o.proxy.URL, to })
				o.proxy.Inject(faults...)
				f(o)
				if early := o.proxy.TooSoon(); len(early) > 0 {
					o.errorf("Retry-After: %v", early)
				}
				mu.Lock()
				defer mu.Unlock()
				all.Add(o.proxy.Injected())
				return nil
			})
		}
	}
	type calls = []uploadtest.Call
	often := map[uploadtest.Call]int{uploadtest.PutPart: 4}
	start("fresh", fresh, uploadtest.Schedule(1, calls{uploadtest.ListUploads, uploadtest.Begin, uploadtest.PutPart, uploadtest.Complete, uploadtest.Head}, often, least))
	start("resumed", resumed, uploadtest.Schedule(2, calls{uploadtest.ListUploads, uploadtest.ListParts, uploadtest.PutPart}, often, least))
	start("failing", failing, uploadtest.Schedule(3, calls{uploadtest.Abort}, nil, least))
	start("objects", objects, uploadtest.Schedule(4, calls{uploadtest.PutObject, uploadtest.Copy, uploadtest.CopyPart, uploadtest.Get, uploadtest.HeadBucket, uploadtest.Remove}, nil, least))
	start("interrupted", interrupted, make([][]uploadtest.Fault, 60))
	_ = runs.Wait() // no run returns an error

	t.Logf("%d runs met %d faults", count, all.Total())
	if count < 200 {
		t.Errorf("only %d runs", count)
	}
	for _, call := range uploadtest.Calls {
		for _, class := range uploadtest.Classes {
			if n := all[class][call]; class.Applies(call) && n < least {
				t.Errorf("%q met %s only %d times", class, call, n)
			}
		}
	}

	if said := said.String(); strings.Contains(said, "RoundTripper") {
		t.Errorf("the HTTP client complains: %.300s", said)
	}
	transport.CloseIdleConnections()
	server.Close()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// syncBuffer is a buffer that many may write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// smallDial makes connections whose buffers do not swallow a whole part.
func smallDial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(8 << 10) // only makes stalls shorter than they could be if it fails
	}
	return conn, err
}
