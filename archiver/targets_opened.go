package archiver

// Opened is an archive that is open.
type Opened struct {
	Name    string // of one of several; "" where there is one
	Archive *Archive
}

// Opened gives the archives that are open now: one, or of several those that could be opened so far.
func (a *Archiver) Opened() []Opened {
	if a.targets == nil {
		return []Opened{{Archive: a.archive}}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Opened
	for _, t := range a.targets {
		if t.archive != nil {
			out = append(out, Opened{t.Name, t.archive})
		}
	}
	return out
}
