#include "verbs/reference.h"

#include <fmt/format.h>

#include "base/text.h"
#include "catalog/catalog.h"
#include "verbs/model_registry.h"

namespace gpumod {

std::string configuration_reference() {
  return configuration_reference_markdown();
}

Result<std::string> configuration_schema(std::string_view kind) {
  if (kind == "service") return json_schema(FileKind::service);
  if (kind == "mode") return json_schema(FileKind::mode);
  if (kind == "settings") return json_schema(FileKind::settings);
  return fail(ErrorCode::not_found, fmt::format("there is no schema '{}'", printable(kind)),
              "Known: service, mode, settings.");
}

std::vector<KnownName> known_names(const Paths& paths, Parameter::Names which) {
  std::vector<KnownName> names;
  if (which == Parameter::Names::none) return names;
  const auto catalog = load_catalog(paths);
  if (!catalog) return names;
  if (which == Parameter::Names::models) {
    const auto store = Store::open_existing(paths.state);
    const Result<std::vector<StoredModel>> stored = store && *store ? (*store)->models() : std::vector<StoredModel>();
    for (const auto& entry : named_models(*catalog, stored.value_or(std::vector<StoredModel>()), paths.home))
      names.push_back({entry.id, entry.source});
    return names;
  }
  if (which == Parameter::Names::modes)
    for (const auto& [id, mode] : catalog->modes)
      names.push_back({id, mode.name});
  else
    for (const auto& [id, service] : catalog->services)
      names.push_back({id, service.name});
  return names;
}

}  // namespace gpumod
