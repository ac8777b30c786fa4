package dcs

import (
	"fmt"
	"unicode/utf16"
)

// ASCII escapes in JSON what JSON may leave as it is, everything above 0x7E, so that CheckValue takes it.
func ASCII(json []byte) string {
	out := make([]byte, 0, len(json))
	for _, c := range string(json) {
		switch {
		case c < 0x7F:
			out = append(out, byte(c))
		case c <= 0xFFFF:
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			hi, lo := utf16.EncodeRune(c)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		}
	}
	return string(out)
}
