package main

import (
	"reflect"
	"testing"
)

func TestGather(t *testing.T) {
	odd := func(n int) bool { return n%2 == 1 }
	if got, want := gather([]int{4, 1, 2, 3}, odd), [][]int{{4, 2}, {1, 3}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := gather(nil, odd); got != nil {
		t.Errorf("of nothing: got %v", got)
	}
}
