// libFuzzer entry: any bytes, read as a file of people's. The first byte chooses which kind of file it is; the rest is
// its text. Nothing is opened. Besides not crashing and not hanging, every problem must say in which file it is, and a
// file with an error must define nothing of its own.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "catalog/catalog.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gpumod;
  if (size == 0) return 0;
  struct Kind {
    FileKind kind;
    const char* file;
  };
  static constexpr Kind kinds[] = {{FileKind::service, "services/x.yaml"},
                                   {FileKind::service, "presets/x.yaml"},
                                   {FileKind::mode, "modes/x.yaml"},
                                   {FileKind::settings, "gpumod.yaml"}};
  const auto& chosen = kinds[data[0] % std::size(kinds)];
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto variables = [](const std::string& name) -> std::optional<std::string> {
    return name == "HOME" ? std::optional<std::string>("/home/ada") : std::nullopt;
  };
  const Catalog catalog = read_catalog_text(chosen.kind, chosen.file, text, variables);
  for (const auto& problem : catalog.problems)
    if (problem.where.file != chosen.file || to_string(problem).empty()) std::abort();
  if (catalog.has_errors() && chosen.kind == FileKind::mode && !catalog.modes.empty()) std::abort();
  for (const auto& [id, service] : catalog.services)
    if (!is_valid_id(id) || service.id != id || service.unit_name().find('/') != std::string::npos) std::abort();
  if (chosen.kind == FileKind::mode) check_mode_text(catalog, "x.yaml", text);
  return 0;
}
