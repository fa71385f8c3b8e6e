// How Hugging Face's cache names things: a pure rule. Whether a snapshot is there, the caller looks.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace gpumod {

/// The folder of one model in the hub's cache: ".../hub/models--Qwen--Qwen3-8B" for "Qwen/Qwen3-8B". Below it,
/// `snapshots/REVISION/` holds the files and `refs/main` the revision in use. Empty for what is no hub id.
std::filesystem::path hub_model_dir(std::string_view id, const std::filesystem::path& hub_root);
/// The folder of its snapshots; a model is there when this holds a folder with files.
std::filesystem::path hub_snapshot_dir(std::string_view id, const std::filesystem::path& hub_root);

/// Where the cache is: $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
/// ~/.cache/huggingface/hub. Each argument is the variable's value, "" when it is unset.
std::filesystem::path hub_root_from(std::string_view hf_hub_cache, std::string_view hf_home,
                                    std::string_view xdg_cache_home, const std::filesystem::path& home);

/// What a value of HF_HUB_OFFLINE means.
bool is_hub_offline(std::string_view value);

/// True for "name" or "organisation/name" in the hub's alphabet.
bool is_hub_id(std::string_view id);

/// "hf download Qwen/Qwen3-8B", with further words, which may be strangers': safe to be pasted into a shell.
std::string download_command(std::string_view id, const std::vector<std::string>& words = {});

}  // namespace gpumod
