// Package strictyaml decodes configuration files and reports everything that
// is wrong with one, each with its place, in one go.
//
// It owns the strictness: an unknown or repeated key, a value of the wrong
// type, a duration without a unit, an anchor, an alias or a second document is
// a Problem. It knows nothing of what the values mean; its callers check that
// and report it with the same places.
package strictyaml
