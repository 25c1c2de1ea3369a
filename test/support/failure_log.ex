defmodule Support.FailureLog do
  @moduledoc """
  An ExUnit formatter that prints what the programs of a failed test wrote.

  Programs belong to the test that started them, or to its module when they were started in `setup_all`. Of each one the last
  lines are printed.
  """
  use GenServer

  @table __MODULE__
  # Enough to see a crash report and what led to it.
  @lines 60

  @doc "Makes the table; once, before the tests."
  def open, do: :ets.new(@table, [:named_table, :public, :duplicate_bag])

  @doc "Says to which test the programs of the calling process belong from now on."
  def enter(module, test \\ :all), do: Process.put(__MODULE__, {module, test})

  def scope, do: Process.get(__MODULE__)

  def add({scope, label}, data),
    do: :ets.insert(@table, {scope, label, System.unique_integer([:monotonic]), data})

  @impl true
  def init(_opts), do: {:ok, nil}

  @impl true
  def handle_cast({:test_finished, %ExUnit.Test{state: {:failed, _}} = test}, s) do
    print({test.module, test.name}, "by the programs of #{test.name}")
    print({test.module, :all}, "by the programs of #{inspect(test.module)}")
    {:noreply, s}
  end

  def handle_cast({:test_finished, test}, s) do
    :ets.delete(@table, {test.module, test.name})
    {:noreply, s}
  end

  def handle_cast({:module_finished, module}, s) do
    :ets.delete(@table, {module.name, :all})
    {:noreply, s}
  end

  def handle_cast(_event, s), do: {:noreply, s}

  defp print(scope, title) do
    logs = @table |> :ets.lookup(scope) |> Enum.group_by(&elem(&1, 1)) |> Enum.sort()

    for {label, chunks} <- logs do
      lines = chunks |> Enum.sort_by(&elem(&1, 2)) |> Enum.map_join(&elem(&1, 3)) |> String.split("\n")
      IO.puts(["\n---- written ", title, ": ", label, "\n", lines |> Enum.take(-@lines) |> Enum.join("\n")])
    end
  end
end
