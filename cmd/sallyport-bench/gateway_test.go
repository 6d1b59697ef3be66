package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/bench/result"
)

func TestGatewayWritesRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.json")
	var out, errs bytes.Buffer
	code := run(context.Background(), strings.Fields("gateway --sizes 64,imix --suites aes128gcm16,aes256-sha256 --associations 1,3 --seconds 0.0001 --runs 2 --json "+path), &out, &errs)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	f, err := result.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Rows) != 2*2*2*2*3 { // directions, sizes, suites, associations, figures
		t.Errorf("%d rows", len(f.Rows))
	}
	want := map[string]bool{"gateway/encrypt/64": true, "gateway/decrypt/imix": true, "gateway/decrypt/64/aes256-sha256/associations=3": true}
	for _, r := range f.Rows {
		delete(want, r.Name)
		if r.Value <= 0 || len(r.Samples) != 2 || (r.Unit != "Mpps" && r.Unit != "ns") || !strings.Contains(r.Command, "--associations") {
			t.Errorf("row %+v", r)
		}
	}
	if len(want) > 0 {
		t.Errorf("rows missing: %v", want)
	}
	if errs.Len() > 0 {
		t.Errorf("progress went to something that is no terminal: %q", errs.String())
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range []string{
		"gateway --sizes 20", "gateway --sizes 9000", "gateway --sizes big", "gateway --suites aes128gcm", "gateway --associations 0",
		"gateway --runs 0", "gateway --seconds 0", "gateway --directions up", "gateway --nothing", "gateway x", "nothing",
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), &out, &errs); code != exitUsage || errs.Len() == 0 {
			t.Errorf("%s: exit %d, %q", args, code, errs.String())
		}
	}
}

func TestInterruptionEndsARun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"gateway"}, &out, &errs); code != exitFailed {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}
