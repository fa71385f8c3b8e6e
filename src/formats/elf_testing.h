// Writes the least of an ELF program that says which libraries it needs, for tests.
#pragma once

#include <string>
#include <vector>

#include <elf.h>

namespace gpumod {

/// `search`: its DT_RUNPATH, none when empty.
inline std::string elf_program(const std::vector<std::string>& needed, const std::string& search) {
  constexpr std::uint64_t address = 0x400000;  // where it says that its first byte lies in memory
  std::string names(1, '\0');
  std::vector<Elf64_Dyn> entries;
  const auto add_name = [&](Elf64_Sxword tag, const std::string& name) {
    entries.push_back({tag, {names.size()}});
    names += name + '\0';
  };
  for (const auto& name : needed)
    add_name(DT_NEEDED, name);
  if (!search.empty()) add_name(DT_RUNPATH, search);
  const std::uint64_t dynamic_at = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
  const std::uint64_t names_at = dynamic_at + (entries.size() + 2) * sizeof(Elf64_Dyn);
  entries.push_back({DT_STRTAB, {address + names_at}});
  entries.push_back({DT_NULL, {0}});

  Elf64_Ehdr header{};
  for (int i = 0; i < SELFMAG; ++i)
    header.e_ident[i] = static_cast<unsigned char>(ELFMAG[i]);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  Elf64_Phdr load{}, dynamic{};
  load.p_type = PT_LOAD;
  load.p_vaddr = address;
  load.p_filesz = names_at + names.size();
  dynamic.p_type = PT_DYNAMIC;
  dynamic.p_offset = dynamic_at;
  dynamic.p_filesz = entries.size() * sizeof(Elf64_Dyn);
  const auto bytes = [](const auto& record) {
    return std::string(reinterpret_cast<const char*>(&record), sizeof record);
  };
  auto out = bytes(header) + bytes(load) + bytes(dynamic);
  for (const auto& entry : entries)
    out += bytes(entry);
  return out + names;
}

}  // namespace gpumod
