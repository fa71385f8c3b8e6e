// The models that gpumod knows of: those that people registered, united with those that services declare. One entry a
// model, however many services use it. People's YAML is only read.
#pragma once

#include <set>
#include <vector>

#include "catalog/catalog.h"
#include "formats/model_facts.h"
#include "formats/model_files.h"
#include "store/store.h"

namespace gpumod {

/// What a list says of a model; 0 and "" where it is not known.
struct ModelSummary {
  std::string architecture;
  std::uint64_t parameters = 0;
  std::string quantization;
  std::uint32_t context_length = 0;
};
ModelSummary summary_of(const ModelFacts& facts);

struct ModelEntry {
  std::string id;
  std::string source;  ///< "gguf", "safetensors", "huggingface", "local"
  bool registered = false;
  std::filesystem::path path;  ///< where it is, or should be; empty: on the hub alone
  std::string hub_id;
  std::string hub_file;
  std::set<ServiceId> services;
  ModelFiles files;  ///< as they are now; none for a model that is on the hub alone
  ModelSummary summary;
  std::string problem;  ///< why nothing could be read of it; ""
  std::string stored;   ///< what was kept of it when it was registered, as JSON; ""

  bool absent() const { return path.empty(); }
};

/// By id: what they are called, where they are, who uses them. Nothing is read of them. `home`: for the hub's cache.
std::vector<ModelEntry> named_models(const Catalog& catalog, const std::vector<StoredModel>& stored,
                                     const std::filesystem::path& home);
/// The same, looked at. Reads headers, so it may block for long.
std::vector<ModelEntry> known_models(const Catalog& catalog, const std::vector<StoredModel>& stored,
                                     const std::filesystem::path& home);
/// The entry of a record, and where it is: of a model of the hub, what was downloaded of it since.
ModelEntry entry_of(const StoredModel& record, const std::filesystem::path& home);
/// An entry for a path that nobody has declared; services and files as far as they can be told.
ModelEntry entry_for(const std::filesystem::path& path);
/// Fills files, summary and problem from what is on the disk now. What was kept counts where nothing can be read, and
/// spares reading where the files have not changed since.
void look_at(ModelEntry& entry);

/// What is to be kept of a model: {"architecture","parameters","quantization","context_length","bytes","files"}.
std::string facts_to_store(const ModelSummary& summary, const ModelFiles& files, Bytes bytes);

/// {"id","source","registered","path","hub","architecture","parameters","quantization","context_length","bytes",
/// "files","missing","services","problem"}; unknown is null.
boost::json::object entry_json(const ModelEntry& entry);

/// True for what may be the id of a model: NAME or ORG/NAME in letters, digits, '.', '_', '-'.
bool is_model_id(std::string_view id);
/// An id made of a title, and not in `taken`.
std::string new_model_id(const std::string& title, const std::set<std::string>& taken);
/// The same place by whichever links it is reached, parts of a series alike.
std::filesystem::path same_place(const std::filesystem::path& path);

}  // namespace gpumod
