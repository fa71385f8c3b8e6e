#include "verbs/model_scan.h"

#include <algorithm>
#include <map>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "base/text.h"
#include "formats/gguf.h"
#include "formats/model_file.h"
#include "formats/model_kind.h"
#include "verbs/handlers.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr int levels = 8;

class Scan {
 public:
  void file(const WalkedFile& found) {
    const auto name = found.path.filename().string();
    auto& folder = folders_[found.path.parent_path()];
    if (name == "config.json")
      folder.configured = true;
    else if (name.ends_with(".safetensors"))
      folder.safetensors = true;
    else if (is_projector_name(name))
      projectors_.insert(found.path);
    else
      models_.insert(first_part(found.path));
  }

  ScannedModels judge() {
    for (const auto& path : models_)
      add(path);
    for (const auto& [path, folder] : folders_)
      if (folder.safetensors && folder.configured)
        add(path);
      else if (folder.safetensors)
        leave_out(path, "it holds safetensors and no config.json: an adapter, or a part of another program's model");
    for (const auto& path : projectors_)
      if (!owned_.contains(path)) leave_out(path, "it is a projector (mmproj), and its model is not beside it");
    const auto by_path = [](const auto& a, const auto& b) { return a.path < b.path; };
    std::sort(out_.models.begin(), out_.models.end(), by_path);
    std::sort(out_.left_out.begin(), out_.left_out.end(), by_path);
    return std::move(out_);
  }

 private:
  struct Folder {
    bool configured = false;
    bool safetensors = false;
  };

  static fs::path first_part(const fs::path& path) {
    const auto part = gguf_part_of(path);
    if (!part) return path;
    return path.parent_path() / fmt::format("{}-00001-of-{:05}.gguf", part->prefix, part->count);
  }

  void leave_out(const fs::path& path, std::string why) { out_.left_out.push_back({path, std::move(why)}); }

  void add(const fs::path& path) {
    auto entry = entry_for(path);
    entry.files = files_of_model(path);
    for (const auto& file : entry.files.files)
      if (file.role == ModelFile::Role::projector) owned_.insert(file.path);
    if (const auto problems = entry.files.obstacles(); !problems.empty())
      return leave_out(path, problems.size() == 1 ? problems.front()
                                                  : fmt::format("{}, and {} more of its files are missing",
                                                                problems.front(), problems.size() - 1));
    const auto facts = read_model(path);
    if (!facts) return leave_out(path, facts.error().message);
    if (guess_kind(*facts, path.filename().string()).kind == ModelKind::unusable && facts->format == ModelFormat::gguf)
      return leave_out(path, "it is no model to serve alone (a projector, an adapter, a vocabulary)");
    entry.source = to_string(entry.files.layout);
    entry.summary = summary_of(*facts);
    out_.models.push_back(std::move(entry));
  }

  std::set<fs::path> models_, projectors_, owned_;
  std::map<fs::path, Folder> folders_;
  ScannedModels out_;
};

Result<void> check_folder(const fs::path& folder) {
  std::error_code problem;
  const auto status = fs::status(folder, problem);
  const auto name = printable(folder.string());
  if (status.type() == fs::file_type::not_found)
    return fail(ErrorCode::not_found, fmt::format("there is no folder {}", name));
  if (!problem && !fs::is_directory(status))
    return fail(ErrorCode::usage, fmt::format("{} is no folder", name),
                fmt::format("gpumod model info {} shows a single model.", name));
  if (::access(folder.c_str(), R_OK | X_OK) != 0)
    return fail(system_error(fmt::format("look into {}", name), errno, ErrorCode::environment));
  return {};
}

}  // namespace

Result<ScannedModels> scan_for_models(const fs::path& folder, const fs::path& home, const MountTable& mounts,
                                      const WalkLimits& limits) {
  TRY(check_folder(folder));
  Scan scan;
  const auto wanted = [](std::string_view name) {
    return is_gguf_name(name) || name.ends_with(".safetensors") || name == "config.json";
  };
  const auto outcome =
      walk_folders({{folder, true, levels}}, home, mounts, limits, wanted, [&](WalkedFile file) { scan.file(file); });
  auto found = scan.judge();
  found.avoided = outcome.avoided;
  found.cut_short = outcome.cut_short;
  return found;
}

namespace {

/// What is known already keeps its id.
void recognise(std::vector<ModelEntry>& models, const std::vector<StoredModel>& stored, const fs::path& home) {
  std::map<fs::path, std::string> ids;
  for (const auto& record : stored)
    if (const auto known = entry_of(record, home); !known.path.empty()) ids.emplace(same_place(known.path), record.id);
  for (auto& model : models)
    if (const auto known = ids.find(same_place(model.path)); known != ids.end())
      model.registered = true, model.id = known->second;
}

/// Registers what is new among `models`, and marks what was there; the ids of the new ones. Another scan may be at it at
/// the same time: what is new is decided inside of the transaction.
Result<std::vector<std::string>> register_all(const fs::path& state, const fs::path& home,
                                              std::vector<ModelEntry>& models) {
  auto store = TRY(Store::open(state, WhenCorrupt::refused));
  std::vector<std::string> registered;
  TRY(store.add_models([&](const std::vector<StoredModel>& there) {
    recognise(models, there, home);
    std::set<std::string> taken;
    for (const auto& record : there)
      taken.insert(record.id);
    std::vector<StoredModel> fresh;
    for (auto& model : models) {
      if (model.registered) continue;
      model.id = new_model_id(model.id, taken);
      model.registered = true;
      taken.insert(model.id);
      registered.push_back(model.id);
      fresh.push_back({model.id, model.source, model.path, "", "",
                       facts_to_store(model.summary, model.files, model.files.bytes()), wall_now()});
    }
    return fresh;
  }));
  return registered;
}

}  // namespace

Answer model_scan(Context& context, Request request) {
  std::error_code problem;
  auto folder = fs::absolute(text_of(request, "folder"), problem).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // "models/"
  const auto stored = context.registered_models();
  if (!stored) co_return fail(stored.error());
  Result<ScannedModels> found = fail(ErrorCode::failed, "not looked");
  const auto& home = context.paths().home;
  const std::function<void()> look = [&] {
    found = scan_for_models(folder, home, MountTable::of_this_machine(), WalkLimits());
    if (found) recognise(found->models, *stored, home);
  };
  co_await run_blocking(look);
  if (!found) co_return fail(found.error());

  json::array registered;
  if (flag_of(request, "register")) {
    Result<std::vector<std::string>> ids = fail(ErrorCode::failed, "not registered");
    const auto& state = context.paths().state;
    const std::function<void()> enter = [&] { ids = register_all(state, home, found->models); };
    co_await run_blocking(enter);
    if (!ids) co_return fail(ids.error());
    for (const auto& id : *ids)
      registered.emplace_back(id);
  }
  json::array models, left_out, notes;
  for (const auto& model : found->models)
    models.emplace_back(entry_json(model));
  for (const auto& each : found->left_out)
    left_out.push_back({{"path", each.path.string()}, {"why", each.why}});
  for (const auto& path : found->avoided)
    notes.emplace_back(fmt::format("{} is on the network and was not looked into; scan it by its name to do so",
                                   printable(path.string())));
  if (found->cut_short)
    notes.emplace_back("The folder is too large to be looked through whole: scan folders below it one by one.");
  co_return json::value(json::object{{"folder", folder.string()},
                                     {"models", std::move(models)},
                                     {"registered", std::move(registered)},
                                     {"left_out", std::move(left_out)},
                                     {"notes", std::move(notes)}});
}

}  // namespace gpumod
