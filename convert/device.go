package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"imgferry/bitmap"
	"imgferry/formats"
)

// Why a device is not written to without being forced.
var (
	// ErrInUse: it is mounted, or otherwise in use.
	ErrInUse = errors.New("it is in use: mounted, or part of something that is")
	// ErrNotEmpty: it holds something.
	ErrNotEmpty = errors.New("it is not empty")
)

// deviceEdge is how much of a device's start and end is looked at for what it holds, in bytes: partition
// tables, file systems and RAIDs have their marks there.
const deviceEdge = 1 << 20

// Device is a block device that becomes a raw disk in place.
type Device struct {
	f    *os.File
	size int64
}

// IsDevice says whether name is a block device's.
func IsDevice(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode()&fs.ModeDevice != 0 && fi.Mode()&fs.ModeCharDevice == 0
}

// OpenDevice opens the block device called name for writing. Unless forced it refuses one that is in
// use (ErrInUse) or has a byte that is not zero near its start or end (ErrNotEmpty).
func OpenDevice(name string, force bool) (*Device, error) {
	// With O_EXCL, Linux refuses a device that is mounted, and keeps others from mounting it meanwhile.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_EXCL, 0)
	if isBusy(err) {
		if !force {
			return nil, fmt.Errorf("%s: %w", name, ErrInUse)
		}
		f, err = os.OpenFile(name, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	d := &Device{f: f}
	if d.size, err = f.Seek(0, io.SeekEnd); err == nil && !force {
		err = d.checkEmpty()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

func (d *Device) checkEmpty() error {
	p := make([]byte, min(deviceEdge, d.size))
	for _, off := range []int64{0, d.size - int64(len(p))} {
		if err := formats.ReadFull(d.f, p, off); err != nil {
			return err
		}
		if !bitmap.IsZero(p) {
			return ErrNotEmpty
		}
	}
	return nil
}

// Size is the device's size in bytes.
func (d *Device) Size() int64 { return d.size }

// Write is there to make it an io.Writer: a device is written to by WriteAt only.
func (d *Device) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// WriteAt writes p at off.
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.f.WriteAt(p, off) }

// Truncate refuses a disk that is larger than the device. What lies behind a smaller one stays.
func (d *Device) Truncate(size int64) error {
	if size > d.size {
		return fmt.Errorf("the disk has %d bytes, the device %d: %w", size, d.size, syscall.ENOSPC)
	}
	return nil
}

// Zero makes n bytes at off zeros: by the device's own means, or by writing them.
func (d *Device) Zero(off, n int64) error {
	if zeroOut(d.f, off, n) == nil {
		return nil
	}
	for end := off + n; off < end; {
		k, err := d.f.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off += int64(k)
	}
	return nil
}

// Sync makes what was written durable.
func (d *Device) Sync() error { return d.f.Sync() }

// Close closes the device.
func (d *Device) Close() error { return d.f.Close() }
