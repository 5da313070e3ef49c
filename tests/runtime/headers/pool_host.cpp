// Loads pool_library twice over under two names, uses it, unloads it: its threads must be gone with it.
// Arguments: two copies of the library.

#include <dirent.h>
#include <dlfcn.h>
#include <unistd.h>

#include "check.h"

namespace {

int threads_alive() {
    int n = 0;
    DIR* tasks = opendir("/proc/self/task");
    while (dirent* entry = readdir(tasks)) n += entry->d_name[0] != '.';
    closedir(tasks);
    return n;
}

}  // namespace

int main(int, char** arguments) {
    for (int round = 0; round < 3; ++round) {
        void* libraries[2];
        for (int i = 0; i < 2; ++i) {
            libraries[i] = dlopen(arguments[1 + i], RTLD_NOW | RTLD_LOCAL);
            if (!libraries[i]) return std::puts(dlerror()), 1;
            auto sum = reinterpret_cast<int (*)(int)>(dlsym(libraries[i], "sum_of_threads"));
            CHECK(sum(3) == 6);
            CHECK(threads_alive() == 1 + 2 * (i + 1));  // each library has two workers of its own
        }
        for (void* library : libraries) dlclose(library);
        CHECK(threads_alive() == 1);
    }
    return failures();
}
