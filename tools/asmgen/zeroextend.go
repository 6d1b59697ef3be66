package main

import (
	"strings"

	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/reg"
)

// compile is pass.Compile with zeroExtendXMM before the registers' liveness.
var compile = pass.Concat(
	pass.Verify,
	pass.FunctionPass(pass.PruneJumpToFollowingLabel),
	pass.FunctionPass(pass.PruneDanglingLabels),
	pass.FunctionPass(pass.LabelTarget),
	pass.FunctionPass(pass.CFG),
	pass.InstructionPass(pass.ZeroExtend32BitOutputs),
	pass.InstructionPass(zeroExtendXMM),
	pass.FunctionPass(pass.Liveness),
	pass.FunctionPass(pass.AllocateRegisters),
	pass.FunctionPass(pass.BindRegisters),
	pass.FunctionPass(pass.VerifyAllocation),
	pass.FunctionPass(pass.EnsureBasePointerCalleeSaved),
	pass.Func(pass.IncludeTextFlagHeader),
	pass.FunctionPass(pass.PruneSelfMoves),
	pass.FunctionPass(pass.RequiredISAExtensions),
)

// zeroExtendXMM tells the liveness analysis that an instruction with a VEX or EVEX prefix that
// writes an XMM or YMM register clears the lanes above. Otherwise a register that is written
// as XMM and read as YMM or ZMM counts as alive from the function's start on.
func zeroExtendXMM(i *ir.Instruction) error {
	if !strings.HasPrefix(i.Opcode, "V") {
		return nil
	}
	for j, op := range i.Outputs {
		if r, ok := op.(reg.Vec); ok && (operand.IsXMM(op) || operand.IsYMM(op)) {
			i.Outputs[j] = r.AsZ()
		}
	}
	return nil
}
