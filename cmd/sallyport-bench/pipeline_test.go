package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/bench/result"
)

func TestPipelineWritesRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipeline.json")
	var out, errs bytes.Buffer
	code := run(context.Background(), strings.Fields("pipeline --sizes 64,imix --suites aes128gcm16,aes256-sha256 --associations 1,3 --kinds ipv4,natt --seconds 0.0001 --runs 2 --json "+path), &out, &errs)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	f, err := result.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Rows) != 2*2*2*2*(2*4+1) { // directions, sizes, suites, kinds, associations, figures; the library's once
		t.Errorf("%d rows", len(f.Rows))
	}
	want := map[string]bool{"gateway/encrypt/64": true, "gateway/decrypt/imix": true, "gateway/decrypt/64/aes256-sha256/associations=3": true, "gateway/decrypt/imix/library": true,
		"gateway/encrypt/imix/natt": true, "gateway/decrypt/64/natt/aes256-sha256/associations=3": true}
	for _, r := range f.Rows {
		if library := strings.HasSuffix(r.Name, "/library"); library != (r.Ratio > 0) || library && len(r.PeerSamples) != 2 {
			t.Errorf("row %+v", r)
		}
		delete(want, r.Name)
		if r.Value < 0 || r.Value == 0 && r.Unit != "allocs" || len(r.Samples) != 2 || (r.Unit != "Mpps" && r.Unit != "ns" && r.Unit != "allocs") || !strings.Contains(r.Command, "--associations") {
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

// TestPipelineComparesWithAChurn finds the three figures of a churn, each from as many samples as there were runs.
func TestPipelineComparesWithAChurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "churn.json")
	var out, errs bytes.Buffer
	code := run(context.Background(), strings.Fields("pipeline --sizes 64 --directions encrypt --associations 3 --churn --seconds 0.02 --runs 2 --json "+path), &out, &errs)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	f, err := result.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range f.Rows {
		if !strings.Contains(r.Name, "/churn") {
			continue
		}
		found++
		if gaps := strings.HasSuffix(r.Name, "/p99.9"); len(r.Samples) != 2 || r.Value <= 0 || gaps != (len(r.PeerSamples) == 2) {
			t.Errorf("row %+v", r)
		}
	}
	if found != 3 {
		t.Errorf("%d rows of the churn, want 3", found)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range []string{
		"pipeline --sizes 20", "pipeline --sizes 9000", "pipeline --sizes big", "pipeline --suites aes128gcm", "pipeline --kinds pigeon", "pipeline --kinds ipv6 --sizes 40", "pipeline --associations 0",
		"pipeline --runs 0", "pipeline --seconds 0", "pipeline --directions up", "pipeline --nothing", "pipeline x", "nothing",
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
	if code := run(ctx, []string{"pipeline"}, &out, &errs); code != exitFailed {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}
