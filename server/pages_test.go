package server_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// heading is a heading of a page, as a link names it: lower case, dashes for
// spaces, without punctuation.
func heading(line string) string {
	text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
	text = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(text, "")
	return strings.ReplaceAll(text, " ", "-")
}

// Every link of the documentation to a file of the repository, and to a heading
// of a page, leads somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	wantOK(t, err)
	pages = append(pages, "../README.md", "../CONTRIBUTING.md")
	read := func(path string) string {
		text, err := os.ReadFile(path)
		wantOK(t, err)
		return string(text)
	}
	links := 0
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(read(page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			found := anchor == ""
			if anchor != "" {
				for line := range strings.Lines(read(target)) {
					found = found || strings.HasPrefix(line, "#") && heading(line) == anchor
				}
			}
			if !found {
				t.Errorf("%s links to %s, and there is no such heading", page, m[1])
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links were looked at", links)
	}
}

// The README's table lists every page.
func TestReadmeListsEveryPage(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	wantOK(t, err)
	_, table, ok := strings.Cut(string(readme), "\n## Documentation\n")
	if !ok {
		t.Fatal("the README has no list of pages")
	}
	pages, err := filepath.Glob("../docs/*.md")
	wantOK(t, err)
	for _, page := range pages {
		if link := "](docs/" + filepath.Base(page) + ")"; !strings.Contains(table, link) {
			t.Errorf("the README does not list %s", page)
		}
	}
}
