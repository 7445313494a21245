package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/raw"
	"imgferry/formats/zvhd2"
	"imgferry/limits"
)

// importStep makes an image of an object.
type importStep struct {
	URL string
	// Fast takes ZVHD2 and raw with a bitmap only.
	Fast bool
	// Kind says which sizes are allowed.
	Kind limits.Import
	// ISO says that the object must be a disc.
	ISO bool
}

// doImport decides by content what the object is, checks all of it, and keeps it.
func (s *Service) doImport(ctx context.Context, j job, st importStep, progress func(done, total int64)) (outcome, error) {
	bucket, key, err := limits.SplitImageURL(st.URL)
	if err != nil {
		return nil, err
	}
	i, ok, err := s.state.image(j.ImageID)
	if err != nil || !ok {
		return nil, errors.Join(err, absent(limits.ImageIDUnknown, "the image is gone"))
	}
	src, err := s.openObject(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if err := limits.FileSize(st.Kind, src.Size()); err != nil {
		return nil, err
	}
	format, err := s.disks.detect(src)
	if err != nil {
		return nil, damaged(key, err)
	}
	disc, err := isISO(src)
	switch {
	case err != nil:
		return nil, damaged(key, err)
	case st.ISO && !disc:
		return nil, damaged(key, errors.New("it is no ISO 9660 disc"))
	case disc && !i.data() && i.OSVersion == "":
		return nil, refuse(limits.ISOVersionMissing, "object %s is an ISO file", key)
	}
	if st.Fast && format.Name != zvhd2Name && format.Name != "raw" {
		return nil, refuse(limits.FastFormat, "object %s is a %s image: convert it", key, strings.ToUpper(serviceName(format)))
	}
	var kept diskFile
	switch {
	case format.Name == zvhd2Name:
		kept, err = s.importZVHD2(ctx, src, key, i.MinDisk, progress)
	case st.Fast:
		kept, err = s.importRaw(ctx, src, bucket, key, i.MinDisk, progress)
	default:
		kept, err = s.importAny(ctx, src, format, key, i.MinDisk, progress)
	}
	if err != nil {
		return nil, err
	}
	size := src.Size()
	return func(t tx, j *job) error {
		i, err := t.mustImage(j.ImageID)
		if err != nil {
			return err
		}
		i.Disks, i.FileSize, i.DiskFormat = []diskFile{kept}, size, serviceName(format)
		if disc {
			i.DiskFormat = "iso"
			if !i.data() {
				i.Environment = environment(limits.TypeISO)
			}
		}
		if i.MinDisk == 0 { // of metadata that says nothing
			i.MinDisk = gigabytes(kept.Virtual)
		}
		return t.putImage(&i)
	}, nil
}

// checkMinDisk holds a disk's size against the image's min_disk, which metadata may leave open.
func checkMinDisk(minDisk int, virtual int64) error {
	if minDisk == 0 {
		return nil
	}
	// The range was checked with the request.
	return limits.CheckMinDisk(limits.AttachedDataImport, minDisk, virtual)
}

// importZVHD2 checks every structure and block of a ZVHD2 file and keeps it as it is.
func (s *Service) importZVHD2(ctx context.Context, src formats.Source, key string, minDisk int, progress func(done, total int64)) (diskFile, error) {
	info, err := zvhd2.Format().Info(ctx, src)
	if err == nil {
		err = info.Problem
	}
	if err != nil {
		return diskFile{}, damaged(key, err)
	}
	if err := checkMinDisk(minDisk, info.VirtualSize); err != nil {
		return diskFile{}, err
	}
	if err := zvhd2.Check(ctx, src, s.cfg.Workers, progress); err != nil {
		return diskFile{}, damaged(key, err)
	}
	kept, err := s.disks.keepFile(ctx, io.NewSectionReader(src, 0, src.Size()), zvhd2Name)
	kept.Virtual = info.VirtualSize
	return kept, err
}

// importRaw holds a raw disk against its bitmap: a set bit stands for a block with a byte other than zero, a
// clear one for a block of zeros.
func (s *Service) importRaw(ctx context.Context, src formats.Source, bucket, key string, minDisk int, progress func(done, total int64)) (diskFile, error) {
	mfKey := limits.BitmapKey(key)
	mf, err := s.openObject(ctx, bucket, mfKey)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diskFile{}, refuse(limits.FastFormat, "object %s is no ZVHD2 image, and there is no bitmap %s for a raw one", key, mfKey)
	case err != nil:
		return diskFile{}, err
	}
	defer mf.Close()
	if err := checkMinDisk(minDisk, src.Size()); err != nil {
		return diskFile{}, err
	}
	want, err := readBitmap(mf, bitmap.Blocks(src.Size()))
	if err != nil {
		return diskFile{}, damaged(mfKey, err)
	}
	return s.importImage(ctx, src, raw.Format(), key, want, progress)
}

// importAny takes an image of any format that Config.Formats has.
func (s *Service) importAny(ctx context.Context, src formats.Source, format formats.Format, key string, minDisk int, progress func(done, total int64)) (diskFile, error) {
	info, err := format.Info(ctx, src)
	switch {
	case err != nil:
		return diskFile{}, damaged(key, err)
	case info.Problem != nil:
		return diskFile{}, damaged(key, info.Problem)
	}
	if err := checkMinDisk(minDisk, info.VirtualSize); err != nil {
		return diskFile{}, err
	}
	return s.importImage(ctx, src, format, key, nil, progress)
}

// importImage decodes a disk and keeps it; want, unless nil, are the blocks that it must have.
func (s *Service) importImage(ctx context.Context, src formats.Source, format formats.Format, key string, want *bitmap.Bitmap, progress func(done, total int64)) (diskFile, error) {
	img, err := format.Open(ctx, borrowed{src}, nil)
	if err != nil {
		return diskFile{}, damaged(key, err)
	}
	defer img.Close()
	kept, result, err := s.disks.keep(ctx, img, progress)
	if err != nil {
		return diskFile{}, damaged(key, err)
	}
	if want != nil {
		if err := compareBlocks(want, result.Blocks); err != nil {
			s.disks.remove([]diskFile{kept})
			return diskFile{}, damaged(key, err)
		}
	}
	return kept, nil
}

// borrowed is a source that its reader does not close. It finds holes if the lender does.
type borrowed struct{ formats.Source }

func (borrowed) Close() error { return nil }

// NextData implements formats.HoleFinder.
func (b borrowed) NextData(off int64) (start, end int64, err error) {
	if h, ok := b.Source.(formats.HoleFinder); ok {
		return h.NextData(off)
	}
	return min(off, b.Size()), b.Size(), nil
}

// compareBlocks finds the first block in which two bitmaps differ.
func compareBlocks(want, got *bitmap.Bitmap) error {
	for i := range want.Len() {
		switch start := i * bitmap.BlockSize; {
		case got.Get(i) && !want.Get(i):
			return fmt.Errorf("block %d, at offset %d, holds data, but the bitmap says it is empty", i, start)
		case !got.Get(i) && want.Get(i):
			return fmt.Errorf("block %d, at offset %d, is empty, but the bitmap says it holds data", i, start)
		}
	}
	return nil
}

// readBitmap reads a bitmap file for a disk of that many blocks.
func readBitmap(mf formats.Source, blocks int64) (*bitmap.Bitmap, error) {
	// At most 64 KiB: files above 1 TiB have been refused.
	if want := bitmap.StoredSize(blocks); mf.Size() != want {
		return nil, fmt.Errorf("the bitmap has %d bytes, %d blocks of 2 MiB need %d", mf.Size(), blocks, want)
	}
	b := make([]byte, mf.Size())
	if err := formats.ReadFull(mf, b, 0); err != nil {
		return nil, fmt.Errorf("can't read the bitmap: %w", err)
	}
	return bitmap.Parse(b, blocks)
}

// openObject opens an object. The error is a failure, and matches fs.ErrNotExist where the store's does.
func (s *Service) openObject(ctx context.Context, bucket, key string) (formats.Source, error) {
	src, err := s.cfg.Objects.OpenObject(ctx, bucket, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f := refuse(limits.FileDamaged, "there is no object %s in bucket %s", key, bucket)
		f.cause = err
		return nil, f
	case err != nil:
		return nil, damaged(key, err)
	}
	return src, nil
}

// damaged is the job's failure for an object that can't be read or doesn't add up. A failure of the service's
// own disk stays one.
func damaged(key string, err error) error {
	var own *keepError
	if errors.As(err, &own) {
		return own
	}
	f := refuse(limits.FileDamaged, "object %s: %s", key, err)
	f.cause = err
	return f
}

// gigabytes is a disk's size in GB, rounded up.
func gigabytes(size int64) int {
	const gb = 1 << 30
	return int((size + gb - 1) / gb)
}
