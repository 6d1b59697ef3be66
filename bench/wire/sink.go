package wire

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// sink counts frames of one protocol and length, and others apart, and drops all of them.
type sink struct {
	program *ebpf.Program
	counts  *ebpf.Map // per CPU: [0] the frames looked for, [1] others
}

func newSink(w wire) (*sink, error) {
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	if err != nil {
		return nil, fmt.Errorf("map of the sink: %w", err)
	}
	const protoAt = l2 + 9
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Imm(asm.R6, 1),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(w.length)),
		asm.JGT.Reg(asm.R4, asm.R3, "count"), // shorter
		asm.LoadMem(asm.R5, asm.R2, protoAt, asm.Byte),
		asm.JNE.Imm(asm.R5, int32(w.proto), "count"),
		asm.Add.Imm(asm.R4, 1),
		asm.JLE.Reg(asm.R4, asm.R3, "count"), // longer
		asm.Mov.Imm(asm.R6, 0),
		asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word).WithSymbol("count"),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, verdictDrop).WithSymbol("drop"),
		asm.Return(),
	}})
	if err != nil {
		counts.Close()
		return nil, fmt.Errorf("sink's program: %w", err)
	}
	return &sink{program, counts}, nil
}

func (s *sink) count() uint64  { return s.read(0) }
func (s *sink) others() uint64 { return s.read(1) }

func (s *sink) read(index uint32) (n uint64) {
	var each []uint64
	if s.counts.Lookup(index, &each) != nil {
		return 0 // closed: nothing arrives any more
	}
	for _, v := range each {
		n += v
	}
	return n
}

func (s *sink) close() error { return errors.Join(s.program.Close(), s.counts.Close()) }
