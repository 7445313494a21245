// Package pipeline is the main job: an opened image becomes an object and then a cloud image. It
// owns the goroutines of both halves, the plan and the report.
//
// It parses no flags and prints nothing; it opens no images and knows no particular store or
// cloud: whoever calls it hands these over.
package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/zvhd2"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/upload"
)

// Bucket is where the object goes.
type Bucket interface {
	upload.Bucket
	CheckBucket(ctx context.Context) error
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64, sum *[16]byte, meta upload.Metadata) (etag string, err error)
	Remove(ctx context.Context, key string) error
	// SetMetadata makes one attempt. An ETag of "" is that which the object had.
	SetMetadata(ctx context.Context, o upload.Object, meta upload.Metadata) (etag string, err error)
	Get(ctx context.Context, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
}

// ImageService makes images from objects.
type ImageService interface {
	QuickImport(ctx context.Context, r ims.QuickImportRequest) (jobID string, err error)
	CreateImage(ctx context.Context, r ims.CreateImageRequest) (jobID string, err error)
	CreateDataImage(ctx context.Context, r ims.DataImageRequest) (jobID string, err error)
	CreateMetadata(ctx context.Context, r ims.MetadataRequest) (ims.Image, error)
	Register(ctx context.Context, imageID, imageURL string) (jobID string, err error)
	DeleteImage(ctx context.Context, id string) error
	Job(ctx context.Context, id string) (ims.Job, error)
	WaitJob(ctx context.Context, jobID string, w ims.Wait) (ims.Job, error)
	WaitImage(ctx context.Context, id string, w ims.Wait) (ims.Image, error)
	Image(ctx context.Context, id string) (ims.Image, error)
	Images(ctx context.Context, filter url.Values) ([]ims.Image, error)
}

// Disk is the opened disk to push.
type Disk struct {
	Image formats.Image
	// Format is the name of the format it was opened as.
	Format string
	// Changed says whether the source's bytes may have changed since it was opened. nil: they
	// can't.
	Changed func() (bool, error)
	// Identity tells this disk's bytes from any others, as far as its files' sizes, times, devices and
	// inodes do; "": they can't be told, and no journal is kept.
	Identity string
}

// Unchanged fails with ErrChanged if the source's bytes may have changed since it was opened.
func (d Disk) Unchanged() error {
	if d.Changed == nil {
		return nil
	}
	changed, err := d.Changed()
	if err != nil {
		return fmt.Errorf("can't see whether the source changed: %w", err)
	}
	if changed {
		return ErrChanged
	}
	return nil
}

// Explain adds to err, the failure of a run under ctx, that the source changed under it, if it did:
// what was read then means nothing.
func (d Disk) Explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrChanged) || !errors.Is(d.Unchanged(), ErrChanged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrChanged, err)
}

// Target formats of a push.
const (
	ZVHD2 = "zvhd2"
	Raw   = "raw"
	// AsIs sends a file's own bytes, whatever they are; the disk is then the file, opened as raw. It
	// is for Upload only.
	AsIs = "as-is"
)

// Push is one run. Name, Disk, Bucket and Images have no default.
type Push struct {
	Disk   Disk
	Bucket Bucket
	Images ImageService

	// BucketName is the bucket's name, for the image service and for messages.
	BucketName string
	// Key is the object's key; "" makes one from Name and the disk's first block.
	Key string
	// Name is the cloud image's name.
	Name string
	// Format is ZVHD2 or Raw.
	Format string
	// OSVersion, Type, Architecture, Description and Tags are the image's properties, as the
	// image service spells them.
	OSVersion, Type, Architecture, Description string
	// OSType is Linux or Windows, for data images only.
	OSType string
	Tags   []ims.Tag
	// MinDisk is in GiB; 0 takes the virtual size, rounded up.
	MinDisk int
	// Via is the way of import: ViaFast, which "" is too, ViaImport or ViaRegister.
	Via string
	// CMKID is the key to encrypt the image with, for ViaImport; EnterpriseProject is where the image
	// belongs, not for ViaRegister. "" for neither.
	CMKID, EnterpriseProject string
	// Overwrite replaces an object of the same key, whatever it holds.
	Overwrite bool
	// DeleteObject removes the object once the image is active.
	DeleteObject bool
	// NewImage registers another image even if there is one of this name and content.
	NewImage bool
	// NoWait returns when the import job has started.
	NoWait bool
	// Bitmap is the block bitmap to send with a raw disk; nil makes one.
	Bitmap []byte
	// Memory is for part buffers, in bytes; 0 takes upload.DefaultMemory.
	Memory int64
	// AbortOnInterrupt gives an unfinished upload up instead of keeping it when the run is
	// interrupted.
	AbortOnInterrupt bool
	// Senders is how many parts are sent at once; 0 finds out.
	Senders int
	// PartSize is the size of parts in bytes; 0 follows from the disk.
	PartSize int64
	// Limit bounds the bytes that are sent a second; nil: nothing does.
	Limit *rate.Limiter
	// Level is how hard the encoder of ZVHD2 tries; AutoLevel begins with it, and then takes the one
	// that keeps both the encoder and the link busy.
	Level     zvhd2.Level
	AutoLevel bool
	// Verify reads the object back and compares its content with the disk's.
	Verify bool
	// Encrypted says, in whatever words, how the store was asked to encrypt the object; "": not at all.
	Encrypted string
	// StoreID tells stores and buckets apart in the journal; "": none is kept.
	StoreID string
	// Retry bounds how requests to the store are repeated; zero fields are defaults.
	Retry upload.Policy
	// Program is the name and version that goes into the object's metadata.
	Program string
	// Wait tunes the waiting for the import job, WaitTimeout bounds it; 0: no bound.
	Wait        ims.Wait
	WaitTimeout time.Duration
	// StateDir is where notes on registrations are kept, so that a run that was killed in the middle
	// of one is taken up; "": none are. Account tells clouds and projects apart in them.
	StateDir, Account string
	// Settle is how long a request to register, whose answer was lost, may take to show in the list
	// of images; 0 is 45 seconds.
	Settle time.Duration
	// Notice is told, one sentence at a time, what the user may want to know; nil: nobody is.
	Notice func(string)
	// Progress is counted up, if not nil.
	Progress *Progress

	choosing func(part int) (chosen func()) // a test's: called around AutoLevel's choice for a part
}

// Progress is counters that somebody else polls.
type Progress struct {
	Convert convert.Progress
	Upload  upload.Progress
	// Size is the object's size in bytes while all that is left to do is to send it, else 0.
	Size atomic.Int64
}

// Report is what a push did.
type Report struct {
	ImageID     string `json:"image_id,omitempty"`
	ImageStatus string `json:"image_status,omitempty"`
	JobID       string `json:"job_id,omitempty"`
	Name        string `json:"name"`
	Bucket      string `json:"bucket"`
	Key         string `json:"key"`
	Format      string `json:"format"`
	ETag        string `json:"etag,omitempty"`
	// Digest is the content digest.
	Digest string `json:"content_digest,omitempty"`
	// VirtualSize, ObjectSize, Sent and Skipped are in bytes; Skipped was in the store already.
	VirtualSize int64 `json:"virtual_size"`
	ObjectSize  int64 `json:"object_size"`
	Sent        int64 `json:"sent"`
	Skipped     int64 `json:"skipped"`
	// Copied is what the store made itself, of zeros, in bytes.
	Copied int64 `json:"copied,omitempty"`
	// Retries is how many requests to the store were repeated, and RetryBudget how many may be in one
	// run.
	Retries     int64 `json:"retries"`
	RetryBudget int64 `json:"retry_budget"`
	// Verified says that the object was read back and holds the disk.
	Verified bool `json:"verified,omitempty"`
	MinDisk  int  `json:"min_disk"`
	// Reused says that the object was there already, with the same content.
	Reused bool `json:"reused"`
	// Adopted says that an image of this name and content was there, or on its way, already.
	Adopted bool `json:"existing_image"`
	// ObjectDeleted says that DeleteObject was carried out.
	ObjectDeleted bool `json:"object_deleted,omitempty"`
}

// Errors of a push, for errors.Is.
var (
	// ErrChanged: the source's bytes changed while they were read.
	ErrChanged = errors.New("the source changed while it was read")
	// ErrExists: the key is taken by an object with other content.
	ErrExists = errors.New("the object exists already")
)

// Names of the object's metadata.
const (
	metaDigest  = "imgferry-digest"  // content digest; absent until the upload is verified
	metaSize    = "imgferry-size"    // virtual size rounded up to 512, bytes
	metaFormat  = "imgferry-format"  // target format
	metaEncoder = "imgferry-encoder" // codec and level
	metaVersion = "imgferry-version"
)

// digestTag is the key of the image tag that holds the content digest.
const digestTag = "imgferry-digest"

// Run pushes the disk. On failure the report says how far it came. What the upload left behind is
// in the error: an *upload.UnfinishedError was kept and can be resumed, anything else was aborted.
func (p Push) Run(ctx context.Context) (r Report, err error) {
	size := p.prepare(&r)
	defer func() { p.account(&r) }()
	if err := p.check(size, &r); err != nil {
		return r, err
	}
	if err := p.keepNotes(); err != nil {
		return r, err
	}
	if err := p.reach(ctx); err != nil {
		return r, err
	}
	// The same for the image service: what it would refuse after hours of sending.
	if _, err := p.Images.Images(ctx, url.Values{"limit": {"1"}}); err != nil {
		return r, fmt.Errorf("nothing was sent, since the image service can't be used: %w", err)
	}
	if done, err := p.present(ctx, &r); done || err != nil {
		return r, err
	}
	if err := p.name(ctx, size, &r); err != nil {
		return r, err
	}
	if err := p.deliver(ctx, size, &r); err != nil {
		return r, err
	}
	return r, p.register(ctx, &r)
}

// Upload is Run without the image service: it ends when the object is whole. It uses neither Images nor
// what an image is registered with. Key has no default here. Errors are as those of Run.
func (p Push) Upload(ctx context.Context) (r Report, err error) {
	size := p.prepare(&r)
	defer func() { p.account(&r) }()
	if p.Key == "" {
		return r, errors.New("the object's key is not set")
	}
	if err := notEmpty(size); err != nil {
		return r, err
	}
	if err := cmp.Or(limits.ObjectKey(p.Key), p.checkBitmapKey()); err != nil {
		return r, err
	}
	if err := p.reach(ctx); err != nil {
		return r, err
	}
	return r, p.deliver(ctx, size, &r)
}

// prepare fills in what is not set, and returns the object's virtual size in bytes.
func (p *Push) prepare(r *Report) int64 {
	if p.Notice == nil {
		p.Notice = func(string) {}
	}
	if p.Progress == nil {
		p.Progress = new(Progress)
	}
	if p.Retry.Run == nil {
		p.Retry.Run = upload.NewRetryBudget(upload.DefaultRetries)
	}
	*r = Report{Name: p.Name, Bucket: p.BucketName, Key: p.Key, Format: p.Format, VirtualSize: p.Disk.Image.Size(), MinDisk: p.MinDisk}
	if p.Format == AsIs {
		return r.VirtualSize
	}
	return roundUp(r.VirtualSize, 512)
}

func (p *Push) account(r *Report) {
	r.Retries, r.RetryBudget = p.Retry.Run.Used(), p.Retry.Run.Limit()
}

// reach makes sure that the bucket is there. Nothing is at stake yet, and a wrong endpoint looks like one
// that is down: it is asked a few times only.
func (p *Push) reach(ctx context.Context) error {
	return upload.Retry(ctx, p.Retry.First(), "check the bucket "+p.BucketName, p.Bucket.CheckBucket)
}

// deliver makes sure that the object is there, whole, and holds the disk.
func (p *Push) deliver(ctx context.Context, size int64, r *Report) error {
	reused, err := p.existing(ctx, size, r)
	if err != nil {
		return err
	}
	if !reused {
		if err := p.send(ctx, size, r); err != nil {
			return p.Disk.Explain(ctx, err)
		}
	}
	if p.Verify {
		return p.reread(ctx, r)
	}
	return nil
}

func (p *Push) send(ctx context.Context, size int64, r *Report) error {
	send := p.raw
	if p.Format == ZVHD2 {
		send = p.stream
	}
	err := send(ctx, size, r)
	if errors.Is(err, upload.ErrNoUpload) || errors.Is(err, upload.ErrReplaced) {
		// Another run of the same push may have completed it.
		if there, failed := p.compare(ctx, size, r); failed == nil && there {
			err = nil
		}
	}
	return err
}

// request is what the image service is asked for; object and tag are not known before the upload.
func (p *Push) request(r *Report) ims.QuickImportRequest {
	q := ims.QuickImportRequest{
		Name: p.Name, Description: p.Description, OSVersion: p.OSVersion, Type: p.Type,
		Architecture: p.Architecture, EnterpriseProjectID: p.EnterpriseProject, MinDisk: r.MinDisk, ImageURL: limits.ImageURL(p.BucketName, r.Key),
		ImageTags: append([]ims.Tag(nil), p.Tags...),
	}
	if p.Type == limits.TypeData {
		// Data images have a kind of system instead of a version.
		q.OSVersion, q.OSType = "", p.OSType
	}
	return q
}

// notEmpty refuses a disk of size bytes that has none: neither an object nor an image can be made of it.
func notEmpty(size int64) error {
	if size > 0 {
		return nil
	}
	return &limits.Error{Field: "virtual_size", Finding: "the disk has 0 bytes", Advice: "there is nothing to send"}
}

// check refuses before anything is sent what the service would refuse after.
func (p *Push) check(size int64, r *Report) error {
	if err := notEmpty(size); err != nil {
		return err
	}
	err := p.checkWay(size)
	if err != nil {
		return err
	}
	if r.MinDisk == 0 {
		if r.MinDisk, err = limits.MinDisk(p.kind(), size); err != nil {
			return err
		}
	}
	if err := limits.CheckMinDisk(p.kind(), r.MinDisk, size); err != nil {
		return err
	}
	if p.Key != "" {
		if err := cmp.Or(limits.ObjectKey(p.Key), p.checkBitmapKey()); err != nil {
			return err
		}
	} else {
		r.Key = p.keyFor([4]byte{}) // any key of the same length and letters
	}
	q := p.request(r)
	q.ImageTags = append(q.ImageTags, ims.Tag{Key: digestTag, Value: "any"})
	if err := p.checkRequest(q); err != nil {
		return err
	}
	r.Key = p.Key
	return nil
}

// name makes the key from the image's name, the size and the first stored block: the same disk
// gets the same key, other disks of the same name get others.
func (p *Push) name(ctx context.Context, size int64, r *Report) error {
	if p.Key != "" {
		return nil
	}
	_, block, err := convert.FirstBlock(ctx, p.Disk.Image)
	if err != nil {
		return err
	}
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(size)))
	h.Write(block)
	r.Key = p.keyFor([4]byte(h.Sum(nil)))
	return nil
}

func (p *Push) keyFor(id [4]byte) string {
	return fmt.Sprintf("%s-%x.%s", strings.Join(strings.Fields(p.Name), "-"), id, p.Format)
}

// existing looks whether the key is taken, and whether what is there is this disk already.
func (p *Push) existing(ctx context.Context, size int64, r *Report) (reused bool, err error) {
	if p.Overwrite {
		return false, nil
	}
	return p.compare(ctx, size, r)
}

// compare looks whether there is an object, and whether it is this disk's: ErrExists if it is another's.
func (p *Push) compare(ctx context.Context, size int64, r *Report) (same bool, err error) {
	o, err := p.stat(ctx, r.Key)
	if errors.Is(err, upload.ErrNoObject) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	meta := p.metadata(size)
	if !alike(o.Metadata, meta) {
		return false, p.taken(r.Key, "made from another disk, in another format, or by another program")
	}
	p.Notice(fmt.Sprintf("%s/%s exists: comparing its content with the disk's", p.BucketName, r.Key))
	judge, finding := p.sameDigest, "its content is the same"
	switch {
	case o.Metadata[metaDigest] != "" && (p.Format != AsIs || o.Size == size):
		finding = "its metadata names the same content"
	case o.Opaque, p.Format == ZVHD2 && p.changesLevel():
		judge = p.sameContent
	default:
		judge = p.sameETag
	}
	found, ok, err := judge(ctx, size, o)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, p.taken(r.Key, "made from a disk with other content or by another encoder")
	}
	if err := p.Disk.Unchanged(); err != nil {
		return false, err
	}
	p.Notice(finding + ": nothing has to be sent")
	r.Digest, r.ETag, r.ObjectSize, r.Skipped, r.Reused = contentDigest(found), o.ETag, o.Size, o.Size, true
	if o.Metadata[metaDigest] == "" {
		if err := p.seal(ctx, meta, upload.Result{Metadata: o.Metadata}, r); err != nil {
			return false, err
		}
	}
	return true, p.putBitmap(ctx, r.Key, p.bitmapOf(found))
}

// alike says that two objects' metadata may be of one disk in one format.
func alike(a, b upload.Metadata) bool {
	return a[metaSize] == b[metaSize] && a[metaFormat] == b[metaFormat]
}

func (p *Push) taken(key, why string) error {
	return fmt.Errorf("%w: %s/%s, %s", ErrExists, p.BucketName, key, why)
}

// sameDigest compares the disk's content digest with the object's.
func (p *Push) sameDigest(ctx context.Context, _ int64, o upload.Object) (convert.Result, bool, error) {
	found, err := p.scan(ctx)
	return found, err == nil && found.Digest.String() == o.Metadata[metaDigest], err
}

// sameETag compares the ETag that the disk's object would have with the one that is there: a run
// that ended between the object's completion and its seal left no digest.
func (p *Push) sameETag(ctx context.Context, size int64, o upload.Object) (convert.Result, bool, error) {
	var etag string
	var length int64
	var found convert.Result
	var err error
	if p.Format == ZVHD2 {
		found, err = p.produce(ctx, size, nil, func(int64) {}, func(ctx context.Context, parts upload.Sequence, _ upload.Plan) (err error) {
			etag, length, err = upload.ETag(ctx, parts)
			return err
		})
	} else {
		var plan rawPlan
		if found, plan, err = p.planRaw(ctx, size); err == nil {
			etag, length, err = upload.ETag(ctx, plan.Parts(padded{p.Disk.Image, p.Disk.Image.Size()}))
		}
	}
	if err == nil && length == o.Size && partsIn(etag) != partsIn(o.ETag) {
		p.Notice("it was sent in other parts, of which its ETag is made: reading it back")
		return p.sameContent(ctx, size, o)
	}
	return found, err == nil && etag == o.ETag && length == o.Size, err
}

// partsIn is what an ETag says of the number of an object's parts: "" where it was sent in one request.
func partsIn(etag string) string {
	_, n, _ := strings.Cut(etag, "-")
	return n
}

// sameContent reads the object back where its ETag tells nothing, and where the disk can't be made into the same
// bytes again, since nobody knows where the level changed.
func (p *Push) sameContent(ctx context.Context, _ int64, o upload.Object) (convert.Result, bool, error) {
	found, err := p.scan(ctx)
	if err != nil {
		return found, false, err
	}
	err = p.reread(ctx, &Report{Key: o.Key, VirtualSize: p.Disk.Image.Size(), Digest: found.Digest.String()})
	if errors.Is(err, ErrDiffers) {
		return found, false, nil
	}
	return found, err == nil, err
}

// scan reads the disk for its digest and its bitmap.
func (p *Push) scan(ctx context.Context) (convert.Result, error) {
	if _, err := p.count(ctx); err != nil {
		return convert.Result{}, err
	}
	return convert.Scan(ctx, p.Disk.Image, convert.Options{Digest: true, Progress: &p.Progress.Convert, Memory: engineMemory})
}

// count returns how many blocks have to be read, and adds them to what the progress is measured by.
func (p *Push) count(ctx context.Context) (int64, error) {
	n, err := convert.Count(ctx, p.Disk.Image)
	p.Progress.Convert.Total.Add(n * convert.BlockSize)
	return n, err
}

// engineMemory is what push leaves for the engine's slots and encoders, in bytes: 320 MiB of peak
// RSS less the part buffers, the program itself and the sandbox it may carry.
const engineMemory = 72 << 20

// metadata is what an object says of itself.
func (p *Push) metadata(size int64) upload.Metadata {
	m := upload.Metadata{
		metaSize:    strconv.FormatInt(size, 10),
		metaFormat:  p.Format,
		metaVersion: p.Program,
	}
	if p.Format == ZVHD2 {
		m[metaEncoder] = p.encoder()
	}
	return m
}

// seal adds the content digest to the metadata of the object that sent tells of. The digest is known only
// after the last byte was sent, so the store copies the object onto itself. Without it the object is whole all
// the same, but a later push can't see that it has the same content. What another disk's upload, which was
// resumed, promised of the object has to go, though.
func (p *Push) seal(ctx context.Context, meta upload.Metadata, sent upload.Result, r *Report) error {
	wrong := contradict(sent.Metadata, meta) || sent.Metadata[metaDigest] != "" && sent.Metadata[metaDigest] != r.Digest
	if r.Digest == "" && !wrong {
		return nil
	}
	if r.Digest != "" {
		meta[metaDigest] = r.Digest
	}
	o := upload.Object{Key: r.Key, Size: r.ObjectSize, ETag: r.ETag, Opaque: sent.Unverified}
	etag, err := p.setMetadata(ctx, o, sent.Stored, meta)
	if err == nil {
		r.ETag = cmp.Or(etag, r.ETag)
	}
	if errors.Is(err, upload.ErrReplaced) {
		// A try whose answer was lost may have made the copy, which has an ETag of its own.
		if o, failed := p.stat(ctx, r.Key); failed == nil && o.Size == r.ObjectSize && o.Metadata[metaDigest] == r.Digest {
			r.ETag = o.ETag
			return nil
		}
		return err // what would be registered is not this disk
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("the object %s is whole, but for its content digest, which the same command will note on it: %w", r.Key, err)
	}
	if err != nil && wrong {
		return fmt.Errorf("the object %s says of itself what is true of another disk, and it could not be corrected: %w", r.Key, err)
	}
	if err != nil {
		p.Notice(fmt.Sprintf("the object is whole, but its content digest could not be noted on it: %v", err))
	}
	return nil
}

// contradict says that two objects' metadata can't be of one disk in one format. What is missing says nothing.
func contradict(a, b upload.Metadata) bool {
	for _, name := range []string{metaSize, metaFormat} {
		if a[name] != "" && b[name] != "" && a[name] != b[name] {
			return true
		}
	}
	return false
}

// setMetadata replaces the metadata of o, which was made of these parts, if they are known. It returns the
// ETag that the object has then, or "" if that is not known.
func (p *Push) setMetadata(ctx context.Context, o upload.Object, parts []upload.StoredPart, meta upload.Metadata) (etag string, err error) {
	if o.Size > upload.MaxCopy {
		p.Notice(fmt.Sprintf("noting the content digest on the object, of which the store makes a copy of %s", humanize.IBytes(uint64(o.Size))))
		o, err = upload.SetMetadata(ctx, p.Bucket, p.Retry, o, parts, meta)
		return o.ETag, err
	}
	// The store copies at some hundred MB/s, while nothing is seen of it.
	policy := p.Retry
	policy.Deadline = cmp.Or(policy.Deadline, 2*time.Minute) + time.Duration(o.Size/(50<<20))*time.Second
	policy.Budget = 2 * policy.Deadline
	err = upload.Retry(ctx, policy, "write the metadata of "+o.Key, func(ctx context.Context) error {
		etag, err = p.Bucket.SetMetadata(ctx, o, meta)
		return err
	})
	return etag, err
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
