// Linked into every program of a sanitizer build. OpenMPI unloads its plugins in MPI_Finalize, before leaks and races
// are reported: their frames would have lost their names, and no suppression could tell them from ours.
extern "C" int dlclose(void* /*library*/) { return 0; }
