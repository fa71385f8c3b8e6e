#include "formats/elf.h"

#include <cstring>

#include <elf.h>
#include <fmt/format.h>

namespace gpumod {

namespace {

constexpr unsigned most_segments = 256;
constexpr std::uint64_t most_entries = 4096;
constexpr std::size_t longest_text = 4096;

class ElfReader {
 public:
  explicit ElfReader(const ByteSource& source) : source_(source) {}

  Result<ProgramLibraries> read() {
    const auto header = TRY(record<Elf64_Ehdr>(0));
    const bool known = std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
                       header.e_ident[EI_DATA] == ELFDATA2LSB && header.e_phentsize == sizeof(Elf64_Phdr);
    if (!known || header.e_phnum > most_segments) return wrong("it is no 64-bit ELF program");
    Elf64_Phdr dynamic{};
    for (unsigned i = 0; i < header.e_phnum; ++i) {
      const auto segment = TRY(record<Elf64_Phdr>(header.e_phoff + i * sizeof(Elf64_Phdr)));
      if (segment.p_type == PT_LOAD) loaded_.push_back(segment);
      if (segment.p_type == PT_DYNAMIC) dynamic = segment;
    }
    return dynamic_section(dynamic);
  }

 private:
  tl::unexpected<Error> wrong(std::string_view what) const {
    return fail(ErrorCode::configuration, fmt::format("{}: {}", source_.name(), what));
  }

  template <typename Record>
  Result<Record> record(std::uint64_t offset) const {
    Record out;
    if (TRY(source_.read_at(offset, reinterpret_cast<char*>(&out), sizeof out)) != sizeof out)
      return wrong("it ends in the middle of its headers");
    return out;
  }

  /// Addresses are of the program in memory; where that lies in the file, its segments say.
  Result<std::uint64_t> offset_of(std::uint64_t address) const {
    for (const auto& segment : loaded_)
      if (address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz)
        return segment.p_offset + (address - segment.p_vaddr);
    return wrong("its dynamic section points outside of it");
  }

  Result<std::string> text(std::uint64_t table, std::uint64_t at) const {
    std::string bytes(longest_text, '\0');
    bytes.resize(TRY(source_.read_at(table + at, bytes.data(), bytes.size())));
    const auto end = bytes.find('\0');
    if (end == std::string::npos) return wrong("a name in it does not end");
    return bytes.substr(0, end);
  }

  Result<ProgramLibraries> dynamic_section(const Elf64_Phdr& dynamic) const {
    std::vector<std::uint64_t> needed;
    std::uint64_t table = 0, runpath = 0, rpath = 0;
    const auto entries = std::min<std::uint64_t>(dynamic.p_filesz / sizeof(Elf64_Dyn), most_entries);
    for (std::uint64_t i = 0; i < entries; ++i) {
      const auto entry = TRY(record<Elf64_Dyn>(dynamic.p_offset + i * sizeof(Elf64_Dyn)));
      if (entry.d_tag == DT_NULL) break;
      if (entry.d_tag == DT_NEEDED) needed.push_back(entry.d_un.d_val);
      if (entry.d_tag == DT_STRTAB) table = entry.d_un.d_ptr;
      if (entry.d_tag == DT_RUNPATH) runpath = entry.d_un.d_val;
      if (entry.d_tag == DT_RPATH) rpath = entry.d_un.d_val;
    }
    ProgramLibraries libraries;
    if (needed.empty()) return libraries;  // linked statically
    table = TRY(offset_of(table));
    for (const auto name : needed)
      libraries.needed.push_back(TRY(text(table, name)));
    if (const auto search = runpath != 0 ? runpath : rpath; search != 0) libraries.search = TRY(text(table, search));
    return libraries;
  }

  const ByteSource& source_;
  std::vector<Elf64_Phdr> loaded_;
};

}  // namespace

Result<ProgramLibraries> read_program_libraries(const ByteSource& program) {
  return ElfReader(program).read();
}

}  // namespace gpumod
