defmodule Support.Libcluster do
  @moduledoc """
  libcluster itself on a BEAM peer, from the directory `LIBCLUSTER`: the compiled modules of libcluster and of telemetry.
  """
  alias Support.Beam

  @doc "The value of the tag `skip` for tests that need it: a reason, which is told, where it is not at hand."
  def skip do
    if File.exists?(Path.join(ebin(), "Elixir.Cluster.Supervisor.beam")) do
      false
    else
      why = "libcluster is not at hand: LIBCLUSTER names no directory with its compiled modules"
      IO.puts(:stderr, "skipped: #{why}")
      why
    end
  end

  @doc "Arguments of a peer that can run it."
  def args do
    logger = Path.join(Application.app_dir(:logger), "ebin")
    ["-pa", ebin(), "-pa", logger]
  end

  @doc "Starts libcluster with one topology on a peer. Options are those of a topology, such as `:connect`."
  def start(peer, strategy, config, opts \\ []) do
    {:ok, _} = Beam.on(peer, Application, :ensure_all_started, [:telemetry])
    {:ok, _} = Beam.on(peer, Application, :ensure_all_started, [:logger])
    topologies = [test: [strategy: strategy, config: config] ++ opts]
    start = {Cluster.Supervisor, :start_link, [[topologies, [name: Test.ClusterSupervisor]]]}
    spec = %{id: Test.ClusterSupervisor, start: start, type: :supervisor}
    # Under a supervisor of OTP's own, for it must outlive the call that starts it.
    {:ok, _} = Beam.on(peer, :supervisor, :start_child, [:kernel_safe_sup, spec])
    :ok
  end

  defp ebin, do: System.get_env("LIBCLUSTER", "")
end
