package aesgcm

import "github.com/klauspost/cpuid/v2"

// assembled lists the implementations in assembly. One that has the instructions it needs
// is available if it gives known answers: a machine, or an emulator of one, that
// computes wrongly is not to be trusted with traffic.
func assembled() []implementation {
	of := func(name string, seal, open func([]Op) (done int), supported bool) (im implementation) {
		im = implementation{name: name, supported: supported, expand: expandAssembly, seal: overBatch(seal)}
		im.open, im.openTruncated = openers(open)
		return im
	}
	all := []implementation{
		of("avx512", longFirst(sealAVX512, inQuads(quadRun, sealQuads, bySize(sealWideMin, sealAVX512, sealVAES))),
			longFirst(openAVX512, inQuads(quadRun, openQuads, bySize(openWideMin, openAVX512, openVAES))),
			cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.BMI2, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.VAES, cpuid.VPCLMULQDQ)),
		of("vaes", assembly(sealVAES).on, assembly(openVAES).on,
			cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.AVX2, cpuid.VAES, cpuid.VPCLMULQDQ)),
		of("aesni", assembly(sealAESNI).on, assembly(openAESNI).on, cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.AVX)),
	}
	for i := range all {
		all[i].available = all[i].supported && givesKnownAnswers(&all[i])
	}
	return all
}
