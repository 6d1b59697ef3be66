package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/bench/crypto"
	"sallyport/bench/result"
)

func TestCryptoWritesRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crypto.json")
	var out, errs bytes.Buffer
	if code := run(context.Background(), strings.Fields("crypto --sizes 64,1420 --bits 128,192 --seconds 0.00001 --runs 2 --json "+path), &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	f, err := result.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Rows) != 2*2*len(crypto.Names())*2*2 { // sizes, key sizes, directions, figures
		t.Errorf("%d rows", len(f.Rows))
	}
	want := map[string]string{"aesgcm128/go/64": crypto.Standard, "aesgcm192/go/1420/open": crypto.Standard, "aesgcm128/go/64/cycles": "", "aesgcm128/go/64/crypto/cipher": ""}
	for _, r := range f.Rows {
		if peer, ok := want[r.Name]; ok {
			if r.Peer != peer || (peer != "" && r.Ratio <= 0) {
				t.Errorf("row %+v", r)
			}
			delete(want, r.Name)
		}
		if r.Value <= 0 || len(r.Samples) != 2 || !strings.HasPrefix(r.Command, "sallyport-bench crypto ") {
			t.Errorf("row %+v", r)
		}
	}
	if len(want) > 0 {
		t.Errorf("rows missing: %v", want)
	}
}

func TestWrongUsageOfCrypto(t *testing.T) {
	for _, args := range []string{"crypto --bits 100", "crypto --sizes 9000", "crypto --sizes -1", "crypto --implementations none", "crypto --runs 0", "crypto --seconds 0", "crypto x"} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), &out, &errs); code != exitUsage || errs.Len() == 0 {
			t.Errorf("%s: exit %d, %q", args, code, errs.String())
		}
	}
}
