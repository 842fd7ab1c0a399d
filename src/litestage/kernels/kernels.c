/* What a forward spends its time in on a CPU: products with packed weights, attention over the cache, and the choice
 * of the next token. Residual streams are fp32 throughout; weights and cache may be narrower.
 *
 * No result depends on how many rows run together: each row's sums are taken in one fixed order, and the compiler is
 * told not to fuse products and sums by itself, which it would do here and not there.
 */
#include "attend.h"
#include "choice.h"
#include "products.h"
#include "weights.h"
