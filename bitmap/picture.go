package bitmap

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"

	"github.com/dustin/go-humanize"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// Storage is how a run of a disk is stored.
type Storage int

// The ways of storing, in the order of the legend.
const (
	Stored     Storage = iota // bytes lie in a file
	Compressed                // compressed bytes lie in a file
	Zeros                     // noted as zeros
	Absent                    // not stored at all
	storages
)

// Look of the picture, in pixels.
const (
	columns   = 128
	maxRows   = 64
	cellSize  = 8
	labels    = 84 // left of the grid
	margin    = 16
	titleLine = 24
	fontLine  = 13 // basicfont.Face7x13
	swatch    = 12
	legendCol = 256
	labelStep = 8 // rows from one label to the next
)

// minCell is the least that a cell stands for, in bytes: a sector.
const minCell = 512

var (
	paper = color.RGBA{0xff, 0xff, 0xff, 0xff}
	ink   = color.RGBA{0x22, 0x22, 0x22, 0xff}
	// Of different lightness too, so that they can be told apart in grey.
	colors = [storages]color.RGBA{
		Stored:     {0x08, 0x45, 0x94, 0xff},
		Compressed: {0xe6, 0x6a, 0x0a, 0xff},
		Zeros:      {0xb7, 0xd7, 0xee, 0xff},
		Absent:     {0xea, 0xea, 0xea, 0xff},
	}
	words = [storages]string{"data", "compressed data", "zeros", "not allocated"}
)

// Picture draws a disk by position: cells from left to right, then down, each the color of what is
// stored in it. Its size does not depend on the disk's.
type Picture struct {
	title string
	size  int64 // of the disk, bytes
	cell  int64 // what a cell stands for, bytes
	cells [][storages]int64
	total [storages]int64
}

// NewPicture returns a picture of a disk of size bytes on which nothing is drawn yet.
func NewPicture(title string, size int64) *Picture {
	cell := max((size-1)/(columns*maxRows)+1, minCell)
	return &Picture{title: title, size: size, cell: cell, cells: make([][storages]int64, max((size-1)/cell+1, 1))}
}

// Add draws the run of length bytes at offset. Runs do not overlap, and lie on the disk.
func (p *Picture) Add(offset, length int64, s Storage) {
	p.total[s] += length
	for length > 0 {
		i := offset / p.cell
		n := min(length, p.cell-offset%p.cell)
		p.cells[i][s] += n
		offset, length = offset+n, length-n
	}
}

// WritePNG writes the picture with its scale and legend.
func (p *Picture) WritePNG(w io.Writer) error {
	rows := (len(p.cells) + columns - 1) / columns
	grid := image.Rect(0, 0, columns*cellSize, rows*cellSize).Add(image.Pt(labels, margin+titleLine))
	img := image.NewRGBA(image.Rect(0, 0, grid.Max.X+margin, grid.Max.Y+margin+2*titleLine))
	draw.Draw(img, img.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	text(img, labels, margin+fontLine, p.title)
	for i, c := range p.cells {
		at := grid.Min.Add(image.Pt(i%columns*cellSize, i/columns*cellSize))
		// A pixel of paper between cells, so that they can be counted.
		draw.Draw(img, image.Rectangle{at, at.Add(image.Pt(cellSize-1, cellSize-1))}, image.NewUniform(mix(c)), image.Point{}, draw.Src)
	}
	for row := 0; row < rows; row += labelStep {
		s := humanize.IBytes(uint64(int64(row) * columns * p.cell))
		text(img, labels-8-7*len(s), grid.Min.Y+row*cellSize+10, s)
	}
	for s := range storages {
		at := image.Pt(labels+int(s)*legendCol, grid.Max.Y+margin)
		draw.Draw(img, image.Rectangle{at, at.Add(image.Pt(swatch, swatch))}, image.NewUniform(colors[s]), image.Point{}, draw.Src)
		text(img, at.X+swatch+6, at.Y+swatch-1, fmt.Sprintf("%s %s (%.1f %%)", words[s], humanize.IBytes(uint64(p.total[s])), 100*float64(p.total[s])/float64(max(p.size, 1))))
	}
	text(img, labels, grid.Max.Y+margin+titleLine+swatch-1, "one cell is "+humanize.IBytes(uint64(p.cell))+", from left to right, then down")
	return png.Encode(w, img)
}

// mix is the color of a cell: that of what is in it by its share. A single stored byte shows.
func mix(c [storages]int64) color.RGBA {
	const visible = 0.35
	var sum, stored float64
	for s, n := range c {
		sum += float64(n)
		if Storage(s) == Stored || Storage(s) == Compressed {
			stored += float64(n)
		}
	}
	if sum == 0 {
		return colors[Absent]
	}
	back, front := blend(c[Zeros:], colors[Zeros:], sum-stored), blend(c[:Zeros], colors[:Zeros], stored)
	share := stored / sum
	if stored > 0 {
		share = visible + (1-visible)*share
	}
	return color.RGBA{
		uint8(back[0]*(1-share) + front[0]*share), uint8(back[1]*(1-share) + front[1]*share), uint8(back[2]*(1-share) + front[2]*share), 0xff,
	}
}

// blend is the mean of colors by count.
func blend(count []int64, colors []color.RGBA, sum float64) (rgb [3]float64) {
	if sum == 0 {
		c := colors[len(colors)-1]
		return [3]float64{float64(c.R), float64(c.G), float64(c.B)}
	}
	for i, n := range count {
		share := float64(n) / sum
		rgb[0] += share * float64(colors[i].R)
		rgb[1] += share * float64(colors[i].G)
		rgb[2] += share * float64(colors[i].B)
	}
	return rgb
}

// text writes s with its baseline at y.
func text(img draw.Image, x, y int, s string) {
	d := font.Drawer{Dst: img, Src: image.NewUniform(ink), Face: basicfont.Face7x13, Dot: fixed.P(x, y)}
	d.DrawString(s)
}
