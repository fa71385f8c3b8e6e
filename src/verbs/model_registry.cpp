#include "verbs/model_registry.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/paths.h"
#include "base/text.h"
#include "control/model_place.h"
#include "engines/hub.h"
#include "formats/gguf.h"
#include "formats/model_file.h"
#include "verbs/model_json.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

/// Sizes and times of change of the weights: while they stay, so does what the headers say.
json::array stamps_of(const ModelFiles& files) {
  json::array stamps;
  for (const auto& file : files.files)
    if (file.role == ModelFile::Role::weights)
      stamps.push_back({{"path", file.path.string()},
                        {"bytes", file.size ? json::value(file.size->count()) : json::value(nullptr)},
                        {"modified", file.modified ? json::value(*file.modified) : json::value(nullptr)}});
  return stamps;
}

json::object stored_facts(const ModelEntry& entry) {
  boost::system::error_code malformed;
  auto parsed = json::parse(entry.stored, malformed);
  return malformed || !parsed.is_object() ? json::object() : std::move(parsed.get_object());
}

ModelSummary stored_summary(const json::object& facts) {
  const auto text = [&](const char* key) {
    const auto* value = facts.if_contains(key);
    return value && value->is_string() ? std::string(value->get_string()) : std::string();
  };
  const auto number = [&](const char* key) -> std::uint64_t {
    const auto* value = facts.if_contains(key);
    if (!value) return 0;
    if (value->is_uint64()) return value->get_uint64();
    return value->is_int64() && value->get_int64() > 0 ? static_cast<std::uint64_t>(value->get_int64()) : 0;
  };
  return {text("architecture"), number("parameters"), text("quantization"),
          static_cast<std::uint32_t>(number("context_length"))};
}

bool unchanged(const json::object& facts, const ModelFiles& files) {
  const auto* stamps = facts.if_contains("files");
  return stamps && *stamps == json::value(stamps_of(files)) && files.obstacles().empty();
}

}  // namespace

ModelEntry entry_of(const StoredModel& record, const fs::path& home) {
  ModelEntry entry;
  entry.id = record.id;
  entry.source = record.source;
  entry.registered = true;
  entry.path = record.path;
  entry.hub_id = record.hub_id;
  entry.hub_file = record.hub_file;
  entry.stored = record.facts;
  if (entry.hub_id.empty() || !entry.path.empty()) return entry;
  // Perhaps it was downloaded since: the hub's cache has one usual place.
  const auto snapshot = hub_snapshot(entry.hub_id, hub_root_of({}, home));
  std::error_code problem;
  if (!snapshot.empty() && fs::exists(snapshot / entry.hub_file, problem))
    entry.path = entry.hub_file.empty() ? snapshot : snapshot / entry.hub_file;
  return entry;
}

namespace {

ModelEntry from_place(const ModelPlace& place) {
  ModelEntry entry;
  entry.hub_id = place.hub_id;
  entry.path = place.path;
  if (!entry.hub_id.empty()) entry.source = "huggingface";
  return entry;
}

bool is_same(const ModelEntry& a, const ModelEntry& b) {
  if (!a.path.empty() && !b.path.empty()) return same_place(a.path) == same_place(b.path);
  return !a.hub_id.empty() && a.hub_id == b.hub_id && a.hub_file == b.hub_file;
}

}  // namespace

fs::path same_place(const fs::path& path) {
  std::error_code problem;
  // A link to a blob is a place of its own: its name says more than the blob's.
  auto folder = fs::weakly_canonical(path.has_parent_path() ? path.parent_path() : fs::path("."), problem);
  if (problem) folder = path.parent_path();
  const auto whole = fs::is_directory(path, problem) ? fs::weakly_canonical(path, problem) : folder / path.filename();
  if (const auto part = gguf_part_of(whole))
    return whole.parent_path() / fmt::format("{}-00001-of-{:05}.gguf", part->prefix, part->count);
  return whole;
}

ModelSummary summary_of(const ModelFacts& facts) {
  ModelSummary summary{facts.architecture, facts.parameters, facts.quantization, facts.context_length};
  if (summary.quantization.empty()) {
    const auto largest = std::max_element(facts.types.begin(), facts.types.end(), [](const auto& a, const auto& b) {
      return a.second.parameters < b.second.parameters;
    });
    if (largest != facts.types.end()) summary.quantization = largest->first;
  }
  return summary;
}

void look_at(ModelEntry& entry) {
  const auto stored = stored_facts(entry);
  entry.summary = stored_summary(stored);
  if (entry.path.empty()) return;
  entry.files = files_of_model(entry.path);
  if (entry.source.empty()) entry.source = to_string(entry.files.layout);
  if (unchanged(stored, entry.files)) return;
  if (!entry.files.obstacles().empty() || entry.files.layout == ModelLayout::local) return;
  const auto facts = read_model(entry.path);
  if (facts)
    entry.summary = summary_of(*facts);
  else
    entry.problem = facts.error().message;
}

ModelEntry entry_for(const fs::path& path) {
  ModelEntry entry;
  std::error_code problem;
  const auto absolute = fs::absolute(path, problem);
  entry.path = problem ? path : absolute.lexically_normal();
  if (!entry.path.has_filename()) entry.path = entry.path.parent_path();  // "models/"
  entry.id = model_title(entry.path);
  return entry;
}

std::vector<ModelEntry> named_models(const Catalog& catalog, const std::vector<StoredModel>& stored,
                                     const fs::path& home) {
  std::vector<ModelEntry> entries;
  for (const auto& record : stored)
    entries.push_back(entry_of(record, home));
  std::set<std::string> taken;
  for (const auto& entry : entries)
    taken.insert(entry.id);
  for (const auto& [id, service] : catalog.services) {
    const auto place = place_of_model(service, additions_of(catalog, service), home);
    if (!place) continue;
    auto declared = from_place(*place);
    const auto same =
        std::find_if(entries.begin(), entries.end(), [&](const ModelEntry& entry) { return is_same(entry, declared); });
    if (same != entries.end()) {
      same->services.insert(id);
      continue;
    }
    declared.id = new_model_id(declared.hub_id.empty() ? model_title(declared.path) : declared.hub_id, taken);
    declared.services.insert(id);
    taken.insert(declared.id);
    entries.push_back(std::move(declared));
  }
  std::sort(entries.begin(), entries.end(), [](const ModelEntry& a, const ModelEntry& b) { return a.id < b.id; });
  return entries;
}

std::vector<ModelEntry> known_models(const Catalog& catalog, const std::vector<StoredModel>& stored,
                                     const fs::path& home) {
  auto entries = named_models(catalog, stored, home);
  for (auto& entry : entries) {
    look_at(entry);
    if (entry.absent() && !entry.services.empty())
      entry.problem = "it is not in the hub's cache, and a service uses it";
  }
  return entries;
}

std::string facts_to_store(const ModelSummary& summary, const ModelFiles& files, Bytes bytes) {
  const json::object facts{{"architecture", summary.architecture},
                           {"parameters", summary.parameters},
                           {"quantization", summary.quantization},
                           {"context_length", summary.context_length},
                           {"bytes", bytes.count()},
                           {"files", stamps_of(files)}};
  return json::serialize(facts);
}

json::object entry_json(const ModelEntry& entry) {
  json::array missing, services;
  for (const auto& problem : entry.files.problems())
    missing.emplace_back(problem);
  for (const auto& service : entry.services)
    services.emplace_back(service);
  json::object out;
  out["id"] = entry.id;
  out["source"] = entry.source;
  out["registered"] = entry.registered;
  out["path"] = known_or_null(entry.path.string());
  out["hub"] = nullptr;
  if (!entry.hub_id.empty()) out["hub"] = {{"id", entry.hub_id}, {"file", known_or_null(entry.hub_file)}};
  out["architecture"] = known_or_null(entry.summary.architecture);
  out["parameters"] = known_or_null(entry.summary.parameters);
  out["quantization"] = known_or_null(entry.summary.quantization);
  out["context_length"] = known_or_null(entry.summary.context_length);
  out["bytes"] = entry.absent() ? json::value(0) : json::value(entry.files.bytes().count());
  out["files"] = entry.files.files.size();
  out["missing"] = std::move(missing);
  out["services"] = std::move(services);
  out["problem"] = known_or_null(entry.problem);
  return out;
}

bool is_model_id(std::string_view id) {
  return is_hub_id(id);
}

std::string new_model_id(const std::string& title, const std::set<std::string>& taken) {
  std::string id;
  for (const char c : title) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool slash = c == '/' && !id.empty() && id.find('/') == std::string::npos;
    const char next = letter || c == '_' || slash ? c : c == '.' ? '.' : '-';
    const bool separator = next == '-' || next == '.' || next == '/';
    const bool after_separator = id.empty() || id.back() == '-' || id.back() == '.' || id.back() == '/';
    if (!separator || !after_separator) id += next;
  }
  id.resize(std::min<std::size_t>(id.size(), 80));
  while (!id.empty() && (id.back() == '-' || id.back() == '.' || id.back() == '/'))
    id.pop_back();
  if (!is_model_id(id)) id = "model";
  if (!taken.contains(id)) return id;
  for (int number = 2;; ++number)
    if (auto numbered = fmt::format("{}-{}", id, number); !taken.contains(numbered)) return numbered;
}

}  // namespace gpumod
