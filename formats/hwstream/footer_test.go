package hwstream

import "testing"

func TestGeometry(t *testing.T) {
	for size, want := range map[int64][3]uint32{ // cylinders, heads, sectors
		// The vendor's driver.
		10485760: {301, 4, 17}, 3221225472: {6241, 16, 63}, 70866960384: {33924, 16, 255}, 5243392: {150, 4, 17},
		// VHD files that qemu-img 7.2 made.
		557056: {16, 4, 17}, 2123776: {61, 4, 17}, 41953280: {964, 5, 17}, 524353536: {1016, 16, 63},
		8590417920: {16645, 16, 63}, 33822351360: {16191, 16, 255}, 70867968000: {33925, 16, 255},
		// The ends: less than a cylinder, and more than fits.
		512: {0, 4, 17}, 1 << 40: {65535, 16, 255}, MaxDiskSize: {65535, 16, 255},
	} {
		if got := geometry(size); got != want[0]<<16|want[1]<<8|want[2] {
			t.Errorf("%d bytes: %d/%d/%d, want %v", size, got>>16, got>>8&0xff, got&0xff, want)
		}
	}
}
