// Asmgen writes the assembly of the gateway's primitives. Its output is checked
// in; regenerating it must change nothing.
//
//	go run -C tools/asmgen . ../../dataplane
package main

import (
	"log"
	"os"
	"path/filepath"
	"regexp"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	log.SetFlags(0)
	// The generator library has the process's own flags for itself.
	if len(os.Args) != 2 {
		log.Fatal("usage: asmgen FOLDER, that of package dataplane")
	}
	folder := filepath.Join(os.Args[1], "aesgcm")
	write(filepath.Join(folder, "aesni_amd64.s"), func(c *build.Context) {
		aesgcm(c, 1, 0)
		keySchedule(c)
	})
	write(filepath.Join(folder, "vaes_amd64.s"), func(c *build.Context) { aesgcm(c, 2, 6) })
	emit(filepath.Join(folder, "avx512_amd64.s"), aesgcmWide)
	emit(filepath.Join(folder, "quad_amd64.s"), aesgcmQuad)
	write(filepath.Join(os.Args[1], "esp", "plain_amd64.s"), func(c *build.Context) {
		plainPrepare(c)
		plainTake(c)
		plainAccept(c)
	})
	write(filepath.Join(os.Args[1], "worker", "express_amd64.s"), func(c *build.Context) {
		passOutbound(c)
		stageDeparture(c)
		passDecapsulated(c)
	})
}

// write emits functions that may not use AVX-512.
func write(path string, generate func(*build.Context)) {
	text := emit(path, generate)
	// Registers from 16 on need AVX-512.
	if high := regexp.MustCompile(`\b[XYZ](1[6-9]|2[0-9]|3[01])\b`).Find(text); high != nil {
		log.Fatalf("%s: too few registers: %s is used", path, high)
	}
}

// emit compiles what generate emits and writes it at path.
func emit(path string, generate func(*build.Context)) (text []byte) {
	c := build.NewContext()
	generate(c)
	file, err := c.Result()
	if err != nil {
		build.LogError(log.Default(), err, 10)
		os.Exit(1)
	}
	if err := compile.Execute(file); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	text, err = printer.NewGoAsm(printer.Config{Name: "tools/asmgen"}).Print(file)
	if err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		log.Fatal(err)
	}
	return text
}
