//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// programs measures the whole program on a disk of 10 GiB that holds the file data somewhere in it:
// wall and CPU time, and the peak of its memory.
func programs(dir, disk, program string, times int) error {
	empty := filepath.Join(dir, "empty.raw")
	if err := spread(empty, "", 1<<40); err != nil {
		return err
	}
	box, out := filepath.Join(dir, "sandbox"), filepath.Join(dir, "out.zvhd2")
	fmt.Printf("\n%-38s %8s %9s %9s\n", "the program on a disk of 10 GiB", "wall s", "cpu s", "peak MiB")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"convert to zvhd2", []string{"convert", disk, out, "-O", "zvhd2"}},
		{"convert to zvhd2 with digest", []string{"convert", disk, out, "-O", "zvhd2", "--digest"}},
		{"digest", []string{"digest", disk}},
		{"push --sandbox", []string{"push", "--sandbox", "--sandbox-data", box, "--new-image", "--overwrite", disk}},
		{"an empty disk of 1 TiB to zvhd2", []string{"convert", empty, out, "-O", "zvhd2"}},
	} {
		var wall, cpu, peak []float64
		for range times {
			// A home of its own, so that nothing of the user's is touched.
			took, err := runChild([]string{"HOME=" + dir, "XDG_STATE_HOME=", "XDG_CONFIG_HOME="}, append([]string{program}, c.args...)...)
			if err != nil {
				return err
			}
			wall, cpu, peak = append(wall, took.Wall.Seconds()), append(cpu, took.CPU), append(peak, float64(took.PeakMB))
			if err := os.RemoveAll(box); err != nil {
				return err
			}
		}
		fmt.Printf("%-38s %8.2f %9.2f %9.0f\n", c.name, median(wall), median(cpu), median(peak))
	}
	return os.Remove(out)
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// spread makes a sparse disk of size bytes with the file data in pieces of 64 MiB all over it; data
// "" leaves it empty.
func spread(name, data string, size int64) error {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(size); err != nil {
		return err
	}
	if data == "" {
		return out.Close()
	}
	content, err := os.ReadFile(data)
	if err != nil {
		return err
	}
	const piece = 64 << 20
	pieces := (len(content) + piece - 1) / piece
	for i := range pieces {
		p := content[i*piece : min((i+1)*piece, len(content))]
		if _, err := out.WriteAt(p, size/int64(pieces)*int64(i)&^4095); err != nil {
			return err
		}
	}
	return out.Close()
}
