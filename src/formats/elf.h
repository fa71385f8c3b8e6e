// Which shared libraries a program asks for by itself, and where it tells the loader to look for them: the dynamic
// section of a 64-bit little-endian ELF file (elf(5), ld.so(8)).
#pragma once

#include <string>
#include <vector>

#include "formats/byte_source.h"

namespace gpumod {

struct ProgramLibraries {
  std::vector<std::string> needed;  ///< DT_NEEDED: "libllama.so.0"
  std::string search;               ///< DT_RUNPATH, else DT_RPATH: folders between colons, $ORIGIN as it is written
};

/// Errors: configuration, when it is no such program or makes no sense (a script is none); failed.
Result<ProgramLibraries> read_program_libraries(const ByteSource& program);

}  // namespace gpumod
