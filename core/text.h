// Text that comes out of files: whether it is text at all, and how much of it a message may repeat.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace sage {

/// Position of the first byte that does not belong into a text: a control character other than tab, line feed and
/// carriage return, or what is not UTF-8 (RFC 3629). npos if there is none.
std::size_t first_non_text(std::string_view text);

/// At most `most` bytes of `text` for a message, in printable ASCII: anything else as \xNN, so that what a hostile file
/// holds neither floods a log nor steers a terminal.
std::string excerpt(std::string_view text, std::size_t most = 120);

}  // namespace sage
