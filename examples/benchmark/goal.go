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
	text := fmt.Sprintf("%s: %.4g%s. The goal is %s %.4g%s: %s", g.What, g.Got, g.Unit, bound, g.Limit, g.Unit, verdict)
	switch {
	case g.Limit == 0:
		return text + "."
	case g.met():
		return text + fmt.Sprintf(" (%.2f times the limit).", g.Got/g.Limit)
	case g.AtLeast:
		return text + fmt.Sprintf(", %.2f times too little.", g.Limit/g.Got)
	}
	return text + fmt.Sprintf(", %.2f times too much.", g.Got/g.Limit)
}
