package main

// gather puts the runs of one kind together, the kinds in the order in which they first come.
func gather[R any, K comparable](all []R, kind func(R) K) (kinds [][]R) {
	at := map[K]int{}
	for _, r := range all {
		k := kind(r)
		i, known := at[k]
		if !known {
			i = len(kinds)
			at[k] = i
			kinds = append(kinds, nil)
		}
		kinds[i] = append(kinds[i], r)
	}
	return kinds
}

// values are what was measured, one a run.
func values[R any](runs []R, of func(R) float64) (all []float64) {
	for _, r := range runs {
		all = append(all, of(r))
	}
	return all
}
