package cmstore_test

import "reflect"

// equalAnswers treats no list and an empty one alike.
func equalAnswers(a, b any) bool {
	if x, ok := a.([]any); ok {
		y := b.([]any)
		for i := range x {
			if list, ok := x[i].([]string); ok && len(list) == 0 && len(y[i].([]string)) == 0 {
				continue
			}
			if !reflect.DeepEqual(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}
