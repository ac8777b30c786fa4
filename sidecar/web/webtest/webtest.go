// Package webtest looks at a page of ours as people do: in Chromium, with a keyboard, on small and large screens, in light and dark.
//
// A [Browser] notes every request and everything that the page complains of. [Browser.Audit] checks what can be checked of accessibility: names of
// controls and drawings, the order of headings, captions, doubled ids, the contrast of every text that is shown, and that nothing has to be scrolled sideways.
package webtest

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

//go:embed audit.js
var auditJS string

// Browser is one tab of a Chromium that ends with the test.
type Browser struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	said     []string
	requests []string
}

// Start starts Debian's Chromium, without a display. A test that has none has failed.
func Start(t testing.TB) *Browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("chromium"), chromedp.NoSandbox, // it runs as root
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-gpu", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	b := &Browser{t: t, ctx: ctx}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	if err := errors.Join(err, err2, chromedp.Listen(ctx, b.listen)); err != nil {
		t.Fatalf("start chromium, which .ci/install installs: %v", err)
	}
	return b
}

func (b *Browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		for _, a := range e.Args {
			b.said = append(b.said, fmt.Sprintf("console.%s: %s", e.Type, a.Value))
		}
	case *log.EventEntryAdded:
		if e.Entry.Source != log.EntrySourceNetwork { // a sidecar that is stopped does not answer
			b.said = append(b.said, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	}
}

func (b *Browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// Open goes to an address.
func (b *Browser) Open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// Screen sets the size of the window and the theme of the system.
func (b *Browser) Screen(width, height int64, dark bool) {
	b.t.Helper()
	theme := "light"
	if dark {
		theme = "dark"
	}
	b.do(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// Eval gives the value of an expression of JavaScript.
func Eval[T any](b *Browser, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("browser: evaluate %.60s: %v", expression, err)
	}
	return value
}

// Text is what an element shows, by its selector.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	quoted, err := json.Marshal(selector)
	if err != nil {
		b.t.Fatal(err)
	}
	return Eval[string](b, fmt.Sprintf(`(document.querySelector(%s) || {innerText: ""}).innerText`, quoted))
}

// Until waits for an expression to be true, and gives the time that it took.
func (b *Browser) Until(limit time.Duration, words, expression string) time.Duration {
	b.t.Helper()
	begin := time.Now()
	for !Eval[bool](b, "!!("+expression+")") {
		if time.Since(begin) > limit {
			b.t.Fatalf("browser: after %v still not: %s. The page says\n%s", limit, words, b.Text("body"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin)
}

// Keys that have no letter.
const (
	Tab   = kb.Tab
	Right = kb.ArrowRight
)

// Press presses keys.
func (b *Browser) Press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// Complaints are errors and messages of the page so far.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

// Strangers are the addresses that were asked for and do not begin with one of ours.
func (b *Browser) Strangers(ours ...string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.requests {
		if !strings.HasPrefix(r, "data:") && !slices.ContainsFunc(ours, func(o string) bool { return strings.HasPrefix(r, o) }) {
			out = append(out, r)
		}
	}
	return out
}

// Audit says what is wrong with what is shown now.
func (b *Browser) Audit() []string {
	b.t.Helper()
	return Eval[[]string](b, auditJS)
}

// Picture writes the whole page, from the top to its end, to a PNG of 256 colours.
func (b *Browser) Picture(path string) {
	b.t.Helper()
	raw, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, fewColours(img)); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// fewColours gives each pixel one of 256 colours: those of areas, and of others that are nearly the same the one that occurs most.
func fewColours(img image.Image) *image.Paletted {
	count := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA {
		r, g, b, _ := img.At(x, y).RGBA()
		return color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
	}
	box := img.Bounds()
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	var palette color.Palette
	taken := map[[3]uint8]bool{}
	for _, c := range colours {
		near := [3]uint8{c.R >> 4, c.G >> 4, c.B >> 4}
		area := count[c] > box.Dx()*box.Dy()/1000 // of which there is much, and not the edge of a letter
		if (area || !taken[near]) && len(palette) < 256 {
			taken[near] = true
			palette = append(palette, c)
		}
	}
	nearest := map[color.RGBA]uint8{}
	out := image.NewPaletted(box, palette)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			c := at(x, y)
			i, ok := nearest[c]
			if !ok {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	return out
}
