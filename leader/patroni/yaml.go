package patroni

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// parseYAML reads a document as leniently as PyYAML, which Patroni uses: of a key that is
// there twice the later one wins, and keys need not be strings.
func parseYAML(b []byte) (any, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, nil // empty, or comments only
	}
	return valueOf(doc.Content[0], 0)
}

func mergeYAML(into section, b []byte) error {
	v, err := parseYAML(b)
	if err != nil || v == nil {
		return err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return errors.New("not a YAML map")
	}
	merge(into, m)
	return nil
}

const deepest = 50 // an alias may contain itself

func valueOf(n *yaml.Node, depth int) (any, error) {
	if depth > deepest {
		return nil, fmt.Errorf("line %d: nested too deep", n.Line)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return valueOf(n.Alias, depth+1)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			var err error
			if list[i], err = valueOf(c, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.MappingNode:
		return mapOf(n, depth)
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool", "!!int", "!!float":
		var v any
		if n.Decode(&v) == nil {
			return v, nil
		}
	}
	return n.Value, nil // also dates, as they are written
}

// mapOf lets the map's own keys win over those that "<<" brings in, wherever it stands.
func mapOf(n *yaml.Node, depth int) (any, error) {
	own, base := map[string]any{}, map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		v, err := valueOf(c, depth+1)
		if err != nil {
			return nil, err
		}
		if k.ShortTag() != "!!merge" {
			own[k.Value] = v
			continue
		}
		bases, isList := v.([]any)
		if !isList {
			bases = []any{v}
		}
		for _, b := range bases { // the first that has a key wins
			m, _ := b.(map[string]any)
			for key, val := range m {
				if _, taken := base[key]; !taken {
					base[key] = val
				}
			}
		}
	}
	for key, val := range own {
		base[key] = val
	}
	return base, nil
}
