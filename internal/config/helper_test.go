package config

import (
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"testing"
)

// memFS is a file system of plain strings; paths are clean and real.
type memFS map[string]string

func (m memFS) ReadFile(name string, limit int64) ([]byte, error) {
	s, ok := m[path.Clean(name)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if int64(len(s)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return []byte(s), nil
}

func (m memFS) Glob(pattern string) ([]string, error) {
	var out []string
	for name := range m {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (m memFS) RealPath(name string) (string, error) {
	if _, ok := m[path.Clean(name)]; !ok {
		return "", fs.ErrNotExist
	}
	return path.Clean(name), nil
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(memFS{}, "/t.conf", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// forget clears positions and the record of the reading, so that two readings of
// the same configuration can be compared.
func (c *Config) forget() *Config {
	c.Warnings, c.Files = nil, nil
	clearPos(reflect.ValueOf(c))
	return c
}

// forgetSource also clears what was written where: what remains is what holds.
func (c *Config) forgetSource() *Config {
	c.forget()
	c.GlobalSet, c.Common, c.HasCommon = nil, Scope{}, false
	for _, r := range c.Resources {
		r.Own = Scope{}
		for _, h := range r.Hosts {
			for _, v := range h.Volumes {
				v.DiskSet = nil
			}
		}
	}
	return c
}

func clearPos(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			clearPos(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			clearPos(v.Index(i))
		}
	case reflect.Struct:
		for _, f := range v.Fields() {
			if f.Type() == reflect.TypeFor[Pos]() {
				f.SetZero()
			} else if f.CanSet() {
				clearPos(f)
			}
		}
	default:
	}
}

// dump prints a value through its pointers, nil and empty slices alike.
func dump(v any) string { return show(reflect.ValueOf(v)) }

func show(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "nil"
		}
		return show(v.Elem())
	case reflect.Slice:
		s := ""
		for i := range v.Len() {
			s += show(v.Index(i)) + "\n"
		}
		return "[" + s + "]"
	case reflect.Struct:
		if str, ok := reflect.TypeAssert[fmt.Stringer](v); ok && v.Type().PkgPath() != reflect.TypeFor[Pos]().PkgPath() {
			return str.String()
		}
		s := v.Type().Name() + "{"
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				s += v.Type().Field(i).Name + ":" + show(v.Field(i)) + " "
			}
		}
		return s + "}"
	default:
	}
	return fmt.Sprintf("%#v", v.Interface())
}
