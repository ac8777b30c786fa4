package main

import "fmt"

// goal is one of the project's own, and what was measured of it. Its text is generated, so that the page says where it is missed, and by how much.
type goal struct {
	What       string
	Got, Limit float64
	Unit       string // after both numbers
	AtLeast    bool   // Got is to be no less than Limit; else no more
}

func (g goal) met() bool {
	if g.AtLeast {
		return g.Got >= g.Limit
	}
	return g.Got <= g.Limit
}

// String is one line of a list.
func (g goal) String() string {
	bound, verdict := "at most", "met"
	if g.AtLeast {
		bound = "at least"
	}
	if !g.met() {
		verdict = "**not met**"
	}
	distance := ""
	if g.Limit > 0 {
		distance = fmt.Sprintf(" (%.2f of it)", g.Got/g.Limit)
	}
	return fmt.Sprintf("%s: %s%s. The goal is %s %s%s: %s%s.", g.What, digits(g.Got), g.Unit, bound, digits(g.Limit), g.Unit, verdict, distance)
}

// digits is a number with as many of them as say something.
func digits(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
