package main

// bar is one measured thing of a bar chart: its runs, drawn as their median, with a line from the smallest to the largest.
type bar struct {
	Label  string
	Values []float64
	Ours   bool // walbaton's: in the accent colour
}

// line is one line of a line chart.
type line struct {
	Label  string
	Points []point
}

// point has one place on the x axis, and the runs that were measured there.
type point struct {
	X      float64
	Values []float64
}

// axes says how a line chart's axes are.
type axes struct {
	X, Y       string // what they show, with the unit
	LogX, LogY bool
}
