# A BEAM node with a worker of the pool, beside the Rust node of main.rs.

defmodule Resizer do
  use GenServer

  def start_link(_argument), do: GenServer.start_link(__MODULE__, 0)

  @impl true
  def init(resized), do: {:ok, resized}

  @impl true
  def handle_call({:resize, image}, _from, resized),
    do: {:reply, {:small, image, to_string(node())}, resized + 1}

  def handle_call(:crash, _from, _resized), do: raise("a large image")
end

children = [
  {Tiebeam, name: Shop},
  {Tiebeam.Pool, cluster: Shop, name: "resizers", child: Resizer}
]

{:ok, _} = Supervisor.start_link(children, strategy: :rest_for_one)
IO.puts("#{node()} is up; Ctrl-C ends it")

# The supervisor ends with this process.
Process.sleep(:infinity)
